"""Training transforms: random scale, crop and flip, on bytes; which jitter follows on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resize_image

from u2pl.data.photometric import Photometric
from u2pl.structures import IGNORE_INDEX

#: ImageNet's mean in 0..255: about zero after a network's normalisation.
MEAN_RGB = (124, 116, 104)


@dataclass(frozen=True)
class Window:
    """A part of an image, and what becomes of it."""

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]  #: (H, W) after resizing, at most that of the crop
    flipped: bool


class RandomScaleCrop:
    """Resize by a random factor, take a random crop, and flip it with a probability.

    Smaller images are padded on the right and below, before the flip. Equivalent to resizing the whole image: the
    window is chosen in the source first, so that only the kept pixels are resized. Images are resized bilinearly with
    antialiasing. Masks take the nearest pixel's value, and their padding is IGNORE_INDEX.
    """

    def __init__(
        self,
        *,
        crop_size: int | tuple[int, int],
        scale: tuple[float, float] = (0.5, 2.0),
        flip: float = 0.5,
        fill: tuple[int, int, int] = MEAN_RGB,
    ) -> None:
        self.crop_size = (crop_size, crop_size) if isinstance(crop_size, int) else (crop_size[0], crop_size[1])
        self.scale, self.flip = scale, flip
        self.blank = torch.tensor(fill, dtype=torch.uint8).repeat(*self.crop_size, 1)  # a crop of padding alone

    def draw(self, height: int, width: int) -> Window:
        """A random window of an image of this size. Random numbers come from the CPU's global generator."""
        factor = torch.empty(()).uniform_(*self.scale).item()
        top, rows, out_rows = _window(height, self.crop_size[0], factor)
        left, columns, out_columns = _window(width, self.crop_size[1], factor)
        return Window(top, left, rows, columns, (out_rows, out_columns), torch.rand(1).item() < self.flip)

    def image(self, image: Tensor, window: Window) -> Tensor:
        """(3, H, W) uint8 -> (3, h, w) uint8, the channels of a pixel side by side in memory."""
        part = image[:, window.top : window.top + window.height, window.left : window.left + window.width]
        part = part[None].contiguous(memory_format=torch.channels_last)  # resized faster, and copied without gaps
        part = resize_image(part, [*window.size], interpolation=InterpolationMode.BILINEAR, antialias=True)
        out = part[0].permute(1, 2, 0)
        if window.size != self.crop_size:
            inside, out = out, self.blank.clone()
            out[: window.size[0], : window.size[1]] = inside
        return (out.flip(1) if window.flipped else out).permute(2, 0, 1)

    def mask(self, mask: Tensor, window: Window) -> Tensor:
        """(H, W) uint8 -> (h, w) uint8, IGNORE_INDEX on padding."""
        rows = window.top + _nearest(window.height, window.size[0])
        columns = window.left + _nearest(window.width, window.size[1])
        return self._padded(mask.numpy()[rows].take(columns, axis=1), IGNORE_INDEX, window.flipped)

    def valid(self, window: Window) -> Tensor:
        """(h, w) bool, False on padding."""
        return self._padded(np.ones(window.size, dtype=np.bool_), False, window.flipped)

    def _padded(self, values: npt.NDArray[Any], fill: int, flipped: bool) -> Tensor:
        if values.shape != self.crop_size:
            inside, values = values, np.full(self.crop_size, fill, dtype=values.dtype)
            values[: inside.shape[0], : inside.shape[1]] = inside
        return torch.from_numpy(np.ascontiguousarray(values[:, ::-1]) if flipped else values)


def _window(side: int, crop: int, factor: float) -> tuple[int, int, int]:
    """Along one side: start and length in the source, and length after resizing."""
    scaled = max(1, round(side * factor))
    if scaled <= crop:
        return 0, side, scaled
    length = min(side, max(1, round(crop / factor)))
    return int(torch.randint(side - length + 1, ()).item()), length, crop


def _nearest(length: int, size: int) -> npt.NDArray[np.int64]:
    """(size,) places in ``length`` pixels that are nearest to the centres of ``size`` pixels."""
    # torchvision resizes masks with NEAREST, which shifts them up to half a pixel against the bilinear image. Between
    # two pixels rounding decides, so torch is asked.
    places = torch.arange(length, dtype=torch.float32)[None, None]
    return F.interpolate(places, size, mode="nearest-exact")[0, 0].long().numpy()


class LabeledTransform:
    """Random scale, crop and flip of a labeled sample; ``jitter`` varies brightness, contrast, saturation and hue."""

    def __init__(
        self,
        *,
        crop_size: int | tuple[int, int],
        scale: tuple[float, float] = (0.5, 2.0),
        flip: float = 0.5,
        fill: tuple[int, int, int] = MEAN_RGB,
        jitter: bool = False,
    ) -> None:
        self.geometry = RandomScaleCrop(crop_size=crop_size, scale=scale, flip=flip, fill=fill)
        #: Draws the jitter that follows on the device; None: no jitter.
        self.photometric = Photometric(gray_probability=0, blur_probability=0) if jitter else None

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(3, H, W) uint8 and (H, W) uint8 -> (3, h, w) uint8 and (h, w) uint8, 255 on padding."""
        window = self.geometry.draw(*image.shape[-2:])
        return self.geometry.image(image, window), self.geometry.mask(mask, window)


class UnlabeledTransform:
    """Random scale, crop and flip of an unlabeled image, of which weak and strong views are made.

    A strong view adds photometric jitter; ``options`` are those of :class:`u2pl.data.photometric.Photometric`. Without
    ``photometric`` it equals the weak view.
    """

    def __init__(
        self,
        *,
        crop_size: int | tuple[int, int],
        scale: tuple[float, float] = (0.5, 2.0),
        flip: float = 0.5,
        fill: tuple[int, int, int] = MEAN_RGB,
        strong_views: int = 1,
        photometric: bool = True,
        **options: Any,
    ) -> None:
        self.geometry = RandomScaleCrop(crop_size=crop_size, scale=scale, flip=flip, fill=fill)
        self.strong_views = strong_views
        self.photometric = Photometric(**options) if photometric else None

    def __call__(self, image: Tensor, truth: Tensor | None = None) -> tuple[Tensor, ...]:
        """(3, H, W) uint8 -> the crop (3, h, w) uint8; valid (h, w) bool, False on padding.

        With ``truth`` (H, W) uint8, also returns it as (h, w) uint8, 255 on padding. It does not change the random
        numbers.
        """
        window = self.geometry.draw(*image.shape[-2:])
        views = self.geometry.image(image, window), self.geometry.valid(window)
        return views if truth is None else (*views, self.geometry.mask(truth, window))
