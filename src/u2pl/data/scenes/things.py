"""The things in a street: trees, lamps, signs, cars, people, bicycles.

Each is drawn at its position, ``x`` metres to the right of the camera and ``z`` ahead. Classes share colours by design.
"""

from __future__ import annotations

import numpy as np

from u2pl.data.scenes.painter import BICYCLE, CAR, PEDESTRIAN, POLE, SIGN, VEGETATION, Canvas, foliage, paint, scaled


def draw_tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a tree (clusters of leaves on a trunk), a cypress, or a bush."""
    kind, leaf = int(rng.integers(4)), foliage(rng, canvas.weather.season)
    height = float(rng.uniform(0.8, 2.0) if kind == 3 else rng.uniform(3.5, 10))
    wide = height * float(rng.uniform(0.12, 0.2) if kind == 2 else rng.uniform(0.25, 0.5))
    base = 0.0 if kind == 3 else height * float(rng.uniform(0.15, 0.4))
    canvas.shadow(x, z, 2 * wide)
    canvas.line((x, 0, z), (x, base + 0.5, z), 0.05 * height, (70, 55, 45), VEGETATION)
    for dx, dy, size, tone in rng.random((12 if z < 20 else 7, 4)).tolist():
        place = base + (height - base) * (0.15 + 0.7 * dy)
        spread = wide * (1 - 0.6 * dy) * (2 * dx - 1)
        radius = (0.35 + 0.3 * size) * wide
        white = canvas.weather.snow and dy + tone > 1
        colour = (220.0, 225.0, 235.0) if white else scaled(leaf, 0.65 + 0.3 * dy + 0.35 * tone)
        canvas.disc(x + spread, place, z, (radius, max(radius, 0.2 * (height - base))), colour, VEGETATION)


def draw_lamp(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a street lamp: a pole with an arm over the road."""
    height, thick, gray = float(rng.uniform(4, 8)), float(rng.uniform(0.4, 0.65)), paint(rng, 0.4, 25, 130)
    arm = -float(np.sign(x)) * float(rng.uniform(0, 2))
    canvas.line((x, 0, z), (x, height, z), thick, gray, POLE)
    canvas.line((x, height, z), (x + arm, height + 0.2, z), 0.6 * thick, gray, POLE)
    if canvas.weather.night:
        canvas.glow(x + arm, height, z, 1.2, (255, 225, 150))


def draw_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a traffic sign on a pole: disc, triangle, diamond, or board, in colours that cars also have."""
    height, size, kind = float(rng.uniform(1.9, 3.2)), float(rng.uniform(0.4, 0.7)), int(rng.integers(5))
    colour = ((200, 30, 35), (30, 70, 170), (235, 190, 30), (30, 120, 70), (230, 230, 230))[int(rng.integers(5))]
    inner = (240, 240, 240) if sum(colour) < 500 else paint(rng, 0.9, 20, 200)
    canvas.line((x, 0, z), (x, height + 0.2, z), float(rng.uniform(0.14, 0.24)), paint(rng, 0.3, 25, 150), POLE)
    if kind == 0:
        canvas.disc(x, height, z, (size, size), colour, SIGN)
        canvas.disc(x, height, z, (0.6 * size, 0.6 * size), inner, None)
    elif kind == 1:
        for scale, ink, label in ((1.0, colour, SIGN), (0.5, inner, None)):
            low, half = height - 0.6 * size * scale, size * scale
            canvas.polygon(((x - half, low, z), (x + half, low, z), (x, low + 1.8 * half, z)), ink, label)
    elif kind == 2:
        for scale, ink, label in ((1.0, colour, SIGN), (0.6, inner, None)):
            half = size * scale
            corners = ((x - half, height, z), (x, height - half, z), (x + half, height, z), (x, height + half, z))
            canvas.polygon(corners, ink, label)
    else:
        wide = size * float(rng.uniform(0.7, 1.6))
        canvas.face(x - wide, x + wide, height - size, height + size, z, colour, SIGN)
        canvas.face(x - 0.6 * wide, x + 0.6 * wide, height - 0.3 * size, height + 0.3 * size, z, inner, None)


def draw_car(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a car, hatchback or van along the street: the end that faces the camera, and the visible side."""
    van = rng.random() < 0.22
    wide, long = float(rng.uniform(1.6, 1.9)), float(rng.uniform(3.4, 4.6)) + van
    waist, roof = float(rng.uniform(0.75, 1.0)), float(rng.uniform(2.0, 2.6) if van else rng.uniform(1.3, 1.6))
    colour, glass = paint(rng, 1.3), paint(rng, 0.4, 15, 70)
    inner, z1 = (x + wide / 2 if x < 0 else x - wide / 2), z + long
    back, front = (0.0, 0.9) if van else (float(rng.uniform(0, 0.25)), float(rng.uniform(0.6, 0.8)))
    dim = scaled(colour, 0.75)
    canvas.shadow(x, z, wide * 1.2)
    canvas.side(inner, 0.2, waist, z, z1, dim, CAR)
    canvas.polygon(
        ((inner, waist, z), (inner, waist, z1), (inner, roof, z + front * long), (inner, roof, z + back * long)),
        dim,
        CAR,
    )
    canvas.side(inner, waist, roof - 0.12, z + (back + 0.1) * long, z + (front - 0.05) * long, glass, None)
    for wheel in (0.18, 0.8):
        centre = z + wheel * long
        canvas.side(inner, 0, 0.55, centre - 0.3, centre + 0.3, (22, 22, 25), CAR)
    left, right = x - wide / 2, x + wide / 2
    canvas.face(left, right, 0.25, waist, z, colour, CAR)
    slope = 0.12 * wide
    cabin = ((left, waist, z), (right, waist, z), (right - slope, roof, z + 0.2), (left + slope, roof, z + 0.2))
    canvas.polygon(cabin, colour, CAR)
    canvas.face(left + 1.6 * slope, right - 1.6 * slope, waist + 0.05, roof - 0.15, z, glass, None)
    lamp = (230, 40, 30) if rng.random() < 0.5 else (250, 245, 220)
    for edge in (left + 0.2, right - 0.2):
        canvas.face(edge - 0.15, edge + 0.15, 0, 0.3, z, (20, 20, 22), CAR)
        canvas.face(edge - 0.15, edge + 0.15, waist - 0.25, waist - 0.05, z, lamp, None)
        if canvas.weather.night:
            canvas.glow(edge, waist - 0.15, z, 0.5, (255, 60, 40) if lamp[1] < 100 else (255, 250, 220))


def draw_crossing_car(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a car that crosses the street, from the side."""
    half, roof, colour = float(rng.uniform(1.8, 2.4)), float(rng.uniform(1.3, 1.9)), paint(rng, 1.3)
    hood = half * float(rng.uniform(0.3, 1.0))
    glass = paint(rng, 0.5, 20, 110)
    canvas.shadow(x, z, 2.2 * half)
    canvas.face(x - half, x + half, 0.25, 0.85, z, colour, CAR)
    cabin = ((x - 0.9 * half, 0.85, z), (x + hood, 0.85, z), (x + 0.6 * hood, roof, z), (x - 0.7 * half, roof, z))
    canvas.polygon(cabin, colour, CAR)
    canvas.face(x - 0.65 * half, x + 0.5 * hood, 0.9, roof - 0.12, z, glass, None)
    for wheel in (-0.6, 0.6):
        canvas.disc(x + wheel * half, 0.32, z, (0.33, 0.33), (22, 22, 25), CAR)


def draw_pedestrian(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, lift: float = 0.0) -> None:
    """Draw a person in clothes of any colour; with ``lift``, a rider."""
    tall = float(rng.uniform(1.5, 1.95) if rng.random() < 0.85 or lift else rng.uniform(0.9, 1.3))
    coat, trousers = paint(rng, 1.6, 60), paint(rng, 0.7, 20, 120)
    skin = scaled((235, 190, 160), float(rng.uniform(0.35, 1.0)))
    broad, stride, step = (
        tall * float(rng.uniform(0.16, 0.22)),
        tall * float(rng.uniform(0, 0.14)),
        float(rng.uniform(-1, 1)),
    )
    hip, neck = lift + 0.48 * tall, lift + 0.84 * tall
    if not lift:
        canvas.shadow(x, z, 0.5 * tall)
    for leg in (-1, 1):
        foot = 0.45 * lift if lift else 0.0
        canvas.line((x + leg * 0.4 * broad, hip, z), (x + leg * stride, foot, z), 0.14 * tall, trousers, PEDESTRIAN)
    skirt = broad * float(rng.uniform(0.8, 1.2))
    low = hip - tall * float(rng.uniform(0, 0.2)) * (lift == 0)
    torso = ((x - broad, neck, z), (x + broad, neck, z), (x + skirt, low, z), (x - skirt, low, z))
    canvas.polygon(torso, coat, PEDESTRIAN)
    for arm in (-1, 1):
        hand = (x + arm * broad * 1.3 + step * stride, hip + 0.02, z)
        canvas.line((x + arm * broad, neck - 0.05, z), hand, 0.1 * tall, scaled(coat, 0.8), PEDESTRIAN)
    canvas.disc(x, lift + 0.92 * tall, z, (0.1 * tall, 0.11 * tall), skin, PEDESTRIAN)
    canvas.disc(x, lift + 0.965 * tall, z, (0.1 * tall, 0.06 * tall), paint(rng, 0.8, 20, 150), PEDESTRIAN)
    if not lift and rng.random() < 0.3:
        canvas.face(x + broad, x + broad + 0.3, hip - 0.25, hip + 0.1, z, paint(rng), PEDESTRIAN)


def draw_bicycle(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, rider: bool = False) -> None:
    """Draw a bicycle, from the side or at an angle, with or without a rider."""
    turn, frame, dark = float(rng.uniform(0.5, 1.0)), paint(rng, 1.2), paint(rng, 0.3, 15, 60)
    reach, radius = 0.7 * turn, 0.5
    ring = max(1, round(canvas.camera.focal * 0.16 / z))
    for wheel in (-reach, reach):
        canvas.disc(x + wheel, radius, z, (radius * turn, radius), dark, BICYCLE, ring=ring)
    seat, pedal, bar = (x - 0.5 * reach, 0.95, z), (x, radius, z), (x + 0.8 * reach, 1.0, z)
    back, fore = (x - reach, radius, z), (x + reach, radius, z)
    canvas.polygon((seat, bar, pedal), scaled(frame, 0.8), BICYCLE)
    for start, end in ((seat, pedal), (seat, back), (pedal, back), (seat, bar), (bar, pedal), (bar, fore)):
        canvas.line(start, end, 0.16, frame, BICYCLE)
    if rider:
        draw_pedestrian(canvas, rng, x - 0.2 * reach, z, lift=0.25)


def draw_cyclist(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a bicycle with a rider."""
    draw_bicycle(canvas, rng, x, z, rider=True)
