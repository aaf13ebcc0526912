"""From image-level tags to labeled pixels: where the classifier looks, refined, and split into seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor

from u2pl.pixels.cam import PixelAdaptiveRefinement, normalized_maps, seeds
from u2pl.structures import Positive, Share

Factor = Annotated[float, Interval(gt=0, le=4)]


@dataclass(frozen=True, slots=True)
class Seeding:
    """Class activation maps of several looks at an image -> refined maps -> seeds.

    K is the number of classes without the background; maps are in [0, 1].

    Args:
        warmup: share of training in which the tags train the classifier alone, before there are seeds.
        scales: sizes at which the classifier looks at an image, as factors of the image's.
        flip: it also looks at the mirror image.
        stride: maps are refined at the resolution of the image divided by this.
        refinement: of the maps by the colours of the image.
        high: a map of at least this is foreground.
        low: maps of at most this are background; what lies between is not a seed.
        share: share of the teacher's segmentation in the maps, once there is one.

    Raises:
        ValueError: ``low`` is above ``high``.
    """

    warmup: Share = 0.3
    scales: Sequence[Factor] = (0.5, 1.0, 1.5)
    flip: bool = True
    stride: Positive = 4
    refinement: PixelAdaptiveRefinement = PixelAdaptiveRefinement()
    high: Share = 0.55
    low: Share = 0.25
    share: Share = 0.5

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low: {self.low} is above high, {self.high}; lower it")

    @property
    def threshold(self) -> float:
        """Score of the background where every pixel has to be of some class: midway."""
        return (self.high + self.low) / 2

    @torch.no_grad()
    def __call__(
        self, network: Any, image: Tensor, tags: Tensor, valid: Tensor | None = None, probability: Tensor | None = None
    ) -> Tensor:
        """(B, H, W) int64: seeds, IGNORE_INDEX where there is none.

        For the arguments see :meth:`maps`. ``probability`` (B, 1 + K, H, W) of a segmentation that knows the tags adds
        its share to the maps: it sees where an object ends, and they keep it from forgetting a class.
        """
        maps = self.maps(network, image, tags, valid)
        if probability is not None:
            maps = torch.lerp(maps, at_size(probability[:, 1:].float(), maps.shape[-2:]), self.share)
        refined = self.refined(image, maps)
        return seeds(at_size(refined, image.shape[-2:]), high=self.high, low=self.low, valid=valid)

    @torch.no_grad()
    def maps(self, network: Any, image: Tensor, tags: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, K, H / stride, W / stride): activation maps, the sum of all looks over its largest value.

        Args:
            network: has a classification head; in evaluation mode. Its ``activate`` tells the maps of an image, its
                ``multiple`` and ``corners`` how they lie on it.
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
        """(B, K, h, w): maps (B, K, h, w) refined by the colours of images (B, 3, H, W), the largest of each one again.

        A class keeps its pixels where the tags leave it no map: that of zeros.
        """
        small = F.interpolate(image.float(), size=maps.shape[-2:], mode="bilinear", antialias=True)
        refined = self.refinement(small, maps)
        return normalized_maps(refined, torch.ones_like(refined[:, :, 0, 0], dtype=torch.bool))


def at_size(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, K, h, w) -> (B, K, *size), bilinearly."""
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)


def over_image(look: Tensor, image: Tensor, size: Sequence[int], *, corners: bool) -> Tensor:
    """A look (B, K, ., .) at what :func:`covered` gave, where it lies on the image: (B, K, *size)."""
    if not corners:
        return at_size(look, size)
    pixels = F.interpolate(look, size=image.shape[-2:], mode="bilinear", align_corners=True)
    return F.interpolate(pixels, size=list(size), mode="area")


def covered(image: Tensor, scale: float, multiple: int, *, corners: bool) -> Tensor:
    """Images (B, 3, H, W) resized by about ``scale``, to sides that the places of an encoder's map cover exactly.

    Places in the middle of their cells do so where sides are multiples. Places in the first pixel of their cells need
    one pixel more: else what is right of the last place, and below it, is hardly seen, and the map lies askew.
    """
    size = [max(1, round((side * scale - corners) / multiple)) * multiple + corners for side in image.shape[-2:]]
    if size == list(image.shape[-2:]):
        return image
    return F.interpolate(image, size=size, mode="bilinear", antialias=True)
