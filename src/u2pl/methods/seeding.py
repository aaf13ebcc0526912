"""From image-level tags to labeled pixels: class activation maps, their refinement, and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor

from u2pl.pixels.cam import PixelAdaptiveRefinement, normalized_maps, seeds
from u2pl.structures import Factor, Share


@dataclass(frozen=True, slots=True)
class Seeding:
    """Class activation maps of an image at several scales -> refined maps -> seeds.

    K is the number of classes without the background. Maps are in [0, 1].

    Args:
        warmup: share of training, at its start, in which tags train only the classifier and there are no seeds.
        scales: scales of the image, as factors of its size, at which the classifier computes maps.
        flip: also compute maps of the mirror image.
        stride: maps are refined at the resolution of the image divided by this.
        refinement: refines the maps by the colours of the image.
        high: a pixel is foreground if its largest map is at least this.
        low: a pixel is background if its largest map is at most this; between ``low`` and ``high`` it is no seed.
        share: share of the teacher's segmentation in the maps, after the warm-up of the schedule.

    Raises:
        ValueError: ``low`` is above ``high``.
    """

    warmup: Share = 0.3
    scales: Sequence[Factor] = (0.5, 1.0, 1.5)
    flip: bool = True
    stride: Annotated[int, Interval(gt=0, le=1024)] = 4
    refinement: PixelAdaptiveRefinement = PixelAdaptiveRefinement()
    high: Share = 0.55
    low: Share = 0.25
    share: Share = 0.5

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low: {self.low} is above high, {self.high}; lower it")

    @property
    def threshold(self) -> float:
        """Score of the background if every pixel needs a class: midway between ``low`` and ``high``."""
        return (self.high + self.low) / 2

    @torch.no_grad()
    def __call__(
        self, network: Any, image: Tensor, tags: Tensor, valid: Tensor | None = None, probability: Tensor | None = None
    ) -> Tensor:
        """(B, H, W) int64: seeds, IGNORE_INDEX where there is none.

        For the arguments see :meth:`maps`. ``probability`` (B, 1 + K, H, W) comes from a segmentation that uses the
        tags. It is mixed into the maps: it adds the borders of objects, and the maps keep it from losing a class.
        """
        maps = self.maps(network, image, tags, valid)
        if probability is not None:
            maps = torch.lerp(maps, at_size(probability[:, 1:].float(), maps.shape[-2:]), self.share)
        refined = self.refined(image, maps)
        return seeds(at_size(refined, image.shape[-2:]), high=self.high, low=self.low, valid=valid)

    @torch.no_grad()
    def maps(self, network: Any, image: Tensor, tags: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, K, H / stride, W / stride): activation maps, summed over scales and flips, divided by their largest
        value.

        Args:
            network: has a classification head and is in evaluation mode. Its ``activate`` returns the maps of an image;
                its ``multiple`` and ``corners`` define their position on the image.
            image: (B, 3, H, W) in [0, 1].
            tags: (B, K) bool, the classes of each image; the maps of all others are zero.
            valid: (B, H, W) bool, False on padding, where maps are zero; None: valid everywhere.
        """
        size = [-(-side // self.stride) for side in image.shape[-2:]]
        total = torch.zeros((), device=image.device)
        for scale in self.scales:
            seen = covered(image, scale, network.multiple, corners=network.corners)
            looks = [network.activate(seen)]
            if self.flip:
                looks.append(network.activate(seen.flip(-1)).flip(-1))
            for look in looks:
                total = total + over_image(look.float().clamp(min=0), image, size, corners=network.corners)
        if valid is not None:
            total = total * F.interpolate(valid.unsqueeze(1).float(), size=size)
        return normalized_maps(total, tags)

    @torch.no_grad()
    def refined(self, image: Tensor, maps: Tensor) -> Tensor:
        """(B, K, h, w): maps refined by the colours of images (B, 3, H, W), divided by their largest value again.

        The map of a class that is not tagged stays zero.
        """
        small = F.interpolate(image.float(), size=maps.shape[-2:], mode="bilinear", antialias=True)
        refined = self.refinement(small, maps)
        return normalized_maps(refined, torch.ones_like(refined[:, :, 0, 0], dtype=torch.bool))


def at_size(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, K, h, w) bilinearly to (B, K, *size)."""
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)


def over_image(look: Tensor, image: Tensor, size: Sequence[int], *, corners: bool) -> Tensor:
    """Resize a map (B, K, ., .) of the output of :func:`covered` to its place on the image: (B, K, *size)."""
    if not corners:
        return at_size(look, size)
    pixels = F.interpolate(look, size=image.shape[-2:], mode="bilinear", align_corners=True)
    return F.interpolate(pixels, size=list(size), mode="area")


def covered(image: Tensor, scale: float, multiple: int, *, corners: bool) -> Tensor:
    """Images (B, 3, H, W) resized by about ``scale``, so that the places of the encoder's map cover them exactly.

    If places are at the centre of their cells, the sides must be multiples of ``multiple``. If places are at the first
    pixel of their cells (``corners``), the sides need one more pixel. Otherwise the map covers too little at the right
    and at the bottom, and is shifted.
    """
    size = [max(1, round((side * scale - corners) / multiple)) * multiple + corners for side in image.shape[-2:]]
    if size == list(image.shape[-2:]):
        return image
    return F.interpolate(image, size=size, mode="bilinear", antialias=True)
