"""Training transforms: random scale, crop and flip; photometric jitter of the strong views."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from u2pl.data.photometric import Photometric
from u2pl.structures import IGNORE_INDEX

#: ImageNet's mean in 0..255: about zero after a network's normalisation.
MEAN_RGB = (124, 116, 104)


class RandomScaleCrop(v2.Transform):
    """Resize by a random factor, then take a random crop. Smaller images are padded on the right and below.

    Equivalent to resizing the whole image. The window is chosen in the source first, so that only the kept pixels are
    resized. Images are resized bilinearly with antialiasing. Masks take the nearest pixel's value, and their padding is
    IGNORE_INDEX.
    """

    def __init__(
        self,
        *,
        crop_size: int | tuple[int, int],
        scale: tuple[float, float] = (0.5, 2.0),
        fill: tuple[int, int, int] = MEAN_RGB,
    ) -> None:
        super().__init__()
        self.crop_size = (crop_size, crop_size) if isinstance(crop_size, int) else tuple(crop_size)
        self.scale = scale
        self.fill = list(fill)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The window (top, left, height, width) in the source, and its size after resizing."""
        factor = torch.empty(()).uniform_(*self.scale).item()
        sides = [
            _window(side, crop, factor) for side, crop in zip(flat_inputs[0].shape[-2:], self.crop_size, strict=True)
        ]
        (top, height, out_height), (left, width, out_width) = sides
        return {"window": (top, left, height, width), "size": [out_height, out_width]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        window, size = params["window"], params["size"]
        padding = [0, 0, self.crop_size[1] - size[1], self.crop_size[0] - size[0]]
        if isinstance(inpt, tv_tensors.Mask):
            # torchvision resizes masks with NEAREST, which shifts them up to half a pixel against the bilinear image.
            plain = inpt.as_subclass(Tensor)[None]
            mask = F.resized_crop_image(plain, *window, size, interpolation=InterpolationMode.NEAREST_EXACT)
            return tv_tensors.wrap(F.pad(mask, padding, fill=IGNORE_INDEX)[0], like=inpt)
        image = F.resized_crop(inpt, *window, size, interpolation=InterpolationMode.BILINEAR, antialias=True)
        return F.pad(image, padding, fill=self.fill)


def _window(side: int, crop: int, factor: float) -> tuple[int, int, int]:
    """Along one side: start and length in the source, and length after resizing."""
    scaled = max(1, round(side * factor))
    if scaled <= crop:
        return 0, side, scaled
    length = min(side, max(1, round(crop / factor)))
    return int(torch.randint(side - length + 1, ()).item()), length, crop


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
        self.geometry = v2.Compose(
            [RandomScaleCrop(crop_size=crop_size, scale=scale, fill=fill), v2.RandomHorizontalFlip(flip)]
        )
        self.photometric = v2.RandomApply([v2.ColorJitter(0.5, 0.5, 0.5, 0.25)], p=0.8) if jitter else v2.Identity()

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(3, H, W) uint8 and (H, W) uint8 -> (3, h, w) float32 in [0, 1] and (h, w) int64, 255 on padding."""
        image, mask = self.geometry(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return to_float(self.photometric(image)), mask.as_subclass(Tensor).long()


class UnlabeledTransform:
    """A weak view and one or more strong views of an unlabeled image, with the same geometry pixel by pixel.

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
        self.geometry = LabeledTransform(crop_size=crop_size, scale=scale, flip=flip, fill=fill).geometry
        self.strong_views = strong_views
        self.photometric = Photometric(**options) if photometric else v2.Identity()

    def __call__(self, image: Tensor, truth: Tensor | None = None) -> tuple[Tensor, ...]:
        """(3, H, W) uint8 -> weak and each strong (3, h, w) float32 in [0, 1]; valid (h, w) bool, False on padding.

        With ``truth`` (H, W) uint8, also returns it as (h, w) int64, 255 on padding. It does not change the random
        numbers.
        """
        inside = tv_tensors.Mask(torch.zeros(image.shape[-2:], dtype=torch.uint8))
        masks = [inside] if truth is None else [inside, tv_tensors.Mask(truth)]
        weak, inside, *known = self.geometry(tv_tensors.Image(image), *masks)
        strong = [to_float(self.photometric(weak)) for _ in range(self.strong_views)]
        valid = inside.as_subclass(Tensor) != IGNORE_INDEX
        return to_float(weak), *strong, valid, *(mask.as_subclass(Tensor).long() for mask in known)


def to_float(image: Tensor) -> Tensor:
    """(3, H, W) uint8 -> contiguous float32 in [0, 1]."""
    return image.as_subclass(Tensor).contiguous().float().div_(255)
