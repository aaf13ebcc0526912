"""Street scenes of other domains: streets at night or in fog."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from u2pl.data.scenes.painter import SKY, Bytes, Floats, Weather

DOMAINS = ("day", "night", "fog")


def weather_of(domain: str, weather: Weather, rng: np.random.Generator) -> Weather:
    """The weather of a scene in a domain; other properties, such as snow, stay."""
    if domain == "night":
        tint = rng.uniform((8, 8, 18), (40, 34, 56))
        return replace(weather, night=True, sun=0, haze_colour=(float(tint[0]), float(tint[1]), float(tint[2])))
    if domain == "fog":
        gray = float(rng.uniform(150, 215))
        return replace(weather, night=False, sun=0, haze=float(rng.uniform(0.03, 0.07)), haze_colour=(gray,) * 3)
    return weather


def relit(domain: str, image: Bytes, mask: Bytes, rng: np.random.Generator) -> Bytes:
    """Apply the light of a domain: image (3, H, W) and mask (H, W), both uint8 -> image."""
    if domain == "night":
        return _by_night(image, rng)
    return _in_fog(image, mask == SKY, rng) if domain == "fog" else image


def _by_night(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Dim blue ambient light, spots of yellow lamps, headlights on the ground ahead, and sensor noise."""
    height, width = image.shape[1:]
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width], dtype=np.float64).reshape(2, 1, 1)
    light = (image.astype(np.float64) / 255) ** 2.2
    gray = light.mean(axis=0, keepdims=True)
    light = gray + rng.uniform(0.4, 0.8) * (light - gray)
    shine = rng.uniform(0.2, 0.4) * _colour(0.75, 0.9, 1.3) * np.ones((1, height, width))
    for _ in range(int(rng.integers(2, 6))):
        spot = _spot(x, y, rng.uniform(0, 1), rng.uniform(0.15, 0.7), rng.uniform(0.08, 0.3), rng.uniform(0.1, 0.35))
        shine = shine + rng.uniform(0.1, 0.5) * _colour(1.25, 0.95, 0.5) * spot
    beam = _spot(x, y, rng.uniform(0.4, 0.6), 1.0, rng.uniform(0.25, 0.5), rng.uniform(0.2, 0.35))
    shine = shine + rng.uniform(0.1, 0.5) * _colour(1.0, 1.0, 0.9) * beam
    seen = (light * shine) ** (1 / 2.2) * 255
    noise = rng.uniform(2, 5)
    seen = seen + noise * rng.standard_normal(seen.shape)
    return np.clip(seen, 0, 255).astype(np.uint8)


def _in_fog(image: Bytes, sky: NDArray[np.bool_], rng: np.random.Generator) -> Bytes:
    """Low contrast and pale colours, in addition to the haze by depth; almost nothing is left of the sky."""
    seen = image.astype(np.float64)
    gray = seen.mean(axis=0, keepdims=True)
    seen = gray + rng.uniform(0.4, 0.8) * (seen - gray)
    veil = np.where(sky, rng.uniform(0.6, 0.95), rng.uniform(0.05, 0.25))
    seen = seen * (1 - veil) + rng.uniform(160, 215) * veil
    return np.clip(seen, 0, 255).astype(np.uint8)


def _colour(red: float, green: float, blue: float) -> Floats:
    return np.array([red, green, blue]).reshape(3, 1, 1)


def _spot(x: Floats, y: Floats, left: float, top: float, wide: float, high: float) -> Floats:
    """(H, W), 1 at the centre and fading outwards; all arguments are shares of the image."""
    return np.exp(-(((x - left) / wide) ** 2) - ((y - top) / high) ** 2)
