"""Where a classifier looks: class activation maps, their refinement by the colours of the image, and seeds.

K is the number of foreground classes: all but class 0, the background, for which there is no map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from u2pl.structures import IGNORE_INDEX, Count, Positive

_EPSILON = 1e-5


def tag_scores(activation: Tensor, valid: Tensor | None = None) -> Tensor:
    """(B, K) scores of whole images: activations (B, K, h, w), averaged over the places that are not padding.

    An activation is the score of a linear classifier at one place of the last features (CAM, Zhou et al. 2016, arXiv
    1512.04150), so that their mean is the classifier's score of the averaged features. ``valid`` is (B, H, W) bool,
    False on padding. A place counts by the share of it that is valid; without a valid pixel the scores are zero.
    """
    activation = activation.float()
    if valid is None:
        return activation.mean(dim=(2, 3))
    share = F.adaptive_avg_pool2d(valid.float().unsqueeze(1), (activation.shape[-2], activation.shape[-1]))
    return (activation * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3)).clamp(min=_EPSILON)


def multi_label_loss(scores: Tensor, tags: Tensor, tagged: Tensor) -> Tensor:
    """Multi-label soft-margin loss of scores (B, K) and (B, K) bool tags, averaged over the images that are ``tagged``
    (B,). Zero without any."""
    loss = F.multilabel_soft_margin_loss(scores.float(), tags.float(), reduction="none")
    return (loss * tagged).sum() / tagged.sum().clamp(min=1)


def normalized_maps(activation: Tensor, tags: Tensor) -> Tensor:
    """(B, K, h, w) float32 in [0, 1]: positive activations over the largest of their class and image; zero for a class
    that is not among the (B, K) bool tags, and for one without a positive activation."""
    maps = activation.float().clamp(min=0) * tags[:, :, None, None]
    return maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=_EPSILON)


def seeds(maps: Tensor, *, high: float, low: float, valid: Tensor | None = None) -> Tensor:
    """(B, h, w) int64: the class whose map (B, K, h, w) is largest where that reaches ``high``; background (0) where no
    map is above ``low``; IGNORE_INDEX between the two, and where (B, h, w) bool ``valid`` does not hold."""
    best, index = maps.max(dim=1)
    label = torch.where(best >= high, index + 1, torch.where(best > low, IGNORE_INDEX, 0))
    return label if valid is None else label.where(valid, IGNORE_INDEX)


def with_background(maps: Tensor, threshold: float) -> Tensor:
    """(B, 1 + K, h, w): maps as scores of all classes; that of the background is the same everywhere."""
    return torch.cat((torch.full_like(maps[:, :1], threshold), maps), dim=1)


@dataclass(frozen=True, slots=True)
class PixelAdaptiveRefinement:
    """PAMR (Araslanov & Roth 2020, arXiv 2005.08104): maps flow to neighbours of the same colour.

    A pixel becomes the mean of its neighbours, weighted by the softmax over them of ``-|x_i - x_j| / (0.1 sigma_i)``,
    averaged over the colours; again and again. The neighbours of each dilation are the eight pixels around, that far
    away; beyond the border stands the pixel at it. sigma is the standard deviation of a pixel and all its neighbours.

    The work is one product for each neighbour and iteration, whatever the number of pixels.

    Args:
        iterations: how often maps flow to the neighbours; 0 leaves them as they are.
        dilations: how far away neighbours are, pixels of the map; the release has 12 and 24, too.
    """

    iterations: Count = 10
    dilations: Sequence[Positive] = (1, 2, 4, 8)

    @torch.no_grad()
    def __call__(self, image: Tensor, maps: Tensor) -> Tensor:
        """Refine maps (B, K, h, w) by images (B, 3, h, w) of the same size; float32."""
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
        """(B, P, h, w): weight of each of P neighbours, in the order of :func:`offsets`, of images (B, 3, h, w)."""
        count = 1 + len(offsets(self.dilations))
        mean = sum(self._neighbours(image), image) / count
        variance = sum(((each - mean) ** 2 for each in self._neighbours(image)), (image - mean) ** 2) / count
        scale = 1 / (0.1 * variance.sqrt() + 1e-8)
        distance = [((each - image).abs() * scale).mean(dim=1) for each in self._neighbours(image)]
        return (-torch.stack(distance, dim=1)).softmax(dim=1)

    def _neighbours(self, x: Tensor) -> Iterator[Tensor]:
        """x (B, K, h, w) as seen from each neighbour: views, not copies."""
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
