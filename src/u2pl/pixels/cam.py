"""Class activation maps, their refinement by the colours of the image, and seeds.

K is the number of foreground classes: all classes except class 0, the background, which has no map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor

from u2pl.pixels.losses import divisor
from u2pl.structures import IGNORE_INDEX, Reduce

_EPSILON = 1e-5


def tag_scores(activation: Tensor, valid: Tensor | None = None) -> Tensor:
    """(B, K) scores of whole images: the mean of activations (B, K, h, w) over the places that are not padding.

    An activation is the score of a linear classifier at one place of the last features (CAM, Zhou et al. 2016, arXiv
    1512.04150). So the mean activation is the classifier's score of the mean features. ``valid`` is (B, H, W) bool,
    False on padding. A place counts by its share of valid pixels. Without a valid pixel the scores are zero.
    """
    activation = activation.float()
    if valid is None:
        return activation.mean(dim=(2, 3))
    share = F.adaptive_avg_pool2d(valid.float().unsqueeze(1), (activation.shape[-2], activation.shape[-1]))
    return (activation * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3)).clamp(min=_EPSILON)


def multi_label_loss(scores: Tensor, tags: Tensor, tagged: Tensor, average: Reduce | None = None) -> Tensor:
    """Multi-label soft-margin loss of scores (B, K) and (B, K) bool tags.

    The mean is over the images that are ``tagged`` (B,), in all processes if ``average`` averages a tensor over them.
    Without one, the loss is zero.
    """
    loss = F.multilabel_soft_margin_loss(scores.float(), tags.float(), reduction="none")
    return (loss * tagged).sum() / divisor(tagged.sum(), average)


def normalized_maps(activation: Tensor, tags: Tensor) -> Tensor:
    """(B, K, h, w) float32 in [0, 1]: positive activations divided by the largest one of their class and image.

    The map is zero for a class that is not in the (B, K) bool tags, and for a class without a positive activation.
    """
    maps = activation.float().clamp(min=0) * tags[:, :, None, None]
    return maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=_EPSILON)


def seeds(maps: Tensor, *, high: float, low: float, valid: Tensor | None = None) -> Tensor:
    """(B, h, w) int64: seeds from maps (B, K, h, w).

    A pixel becomes the class of its largest map if that is at least ``high``, and background (0) if no map is above
    ``low``. All others are IGNORE_INDEX, as are pixels where ``valid`` (B, h, w) bool is False.
    """
    best, index = maps.max(dim=1)
    label = torch.where(best >= high, index + 1, torch.where(best > low, IGNORE_INDEX, 0))
    return label if valid is None else label.where(valid, IGNORE_INDEX)


def with_background(maps: Tensor, threshold: float) -> Tensor:
    """(B, 1 + K, h, w): maps as scores of all classes. The background has the same score everywhere."""
    return torch.cat((torch.full_like(maps[:, :1], threshold), maps), dim=1)


@dataclass(frozen=True, slots=True)
class PixelAdaptiveRefinement:
    """PAMR (Araslanov & Roth 2020, arXiv 2005.08104): spreads maps to neighbours of the same colour.

    Each iteration replaces a pixel by a weighted mean of its neighbours. The weights are the softmax over the
    neighbours of ``-|x_i - x_j| / (0.1 sigma_i)``, averaged over the colours. sigma is the standard deviation over a
    pixel and all its neighbours. Each dilation has eight neighbours, at its distance around the pixel. Beyond the
    border, the nearest border pixel takes their place.

    Each neighbour and iteration costs one product of tensors, whatever the number of pixels.

    Args:
        iterations: how often maps spread to the neighbouring pixels; 0: no refinement.
        dilations: distances to the neighbours in pixels of the map; the released code also uses 12 and 24.
    """

    iterations: Annotated[int, Interval(ge=0, le=1000)] = 10
    dilations: Sequence[Annotated[int, Interval(gt=0, le=1000)]] = (1, 2, 4, 8)

    @torch.no_grad()
    def __call__(self, image: Tensor, maps: Tensor) -> Tensor:
        """Refine maps (B, K, h, w) by images (B, 3, h, w) of the same size. Returns float32."""
        with torch.autocast(maps.device.type, enabled=False):
            maps = maps.float()
            if not self.iterations or not self.dilations:
                return maps
            affinity = self.affinity(image.float())
            for _ in range(self.iterations):
                mixed = torch.zeros_like(maps)
                for weight, neighbour in zip(affinity.unsqueeze(2).unbind(1), self._neighbours(maps), strict=True):
                    mixed.addcmul_(weight, neighbour)
                maps = mixed
        return maps

    def affinity(self, image: Tensor) -> Tensor:
        """(B, P, h, w): weights of the P neighbours, in the order of :func:`offsets`, for images (B, 3, h, w)."""
        count = 1 + len(offsets(self.dilations))
        mean = sum(self._neighbours(image), image) / count
        variance = sum(((each - mean) ** 2 for each in self._neighbours(image)), (image - mean) ** 2) / count
        scale = 1 / (0.1 * variance.sqrt() + 1e-8)
        distance = [((each - image).abs() * scale).mean(dim=1) for each in self._neighbours(image)]
        return (-torch.stack(distance, dim=1)).softmax(dim=1)

    def _neighbours(self, x: Tensor) -> Iterator[Tensor]:
        """Yield x (B, K, h, w) shifted to each neighbour: views, not copies."""
        height, width = x.shape[-2:]
        reach = max(self.dilations)
        padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
        for down, right in offsets(self.dilations):
            top, left = reach + down, reach + right
            yield padded[..., top : top + height, left : left + width]


def offsets(dilations: Sequence[int]) -> list[tuple[int, int]]:
    """Rows and columns from a pixel to its neighbours: eight for each dilation."""
    around = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    return [(y * dilation, x * dilation) for dilation in dilations for y, x in around]
