"""Strong views by mixing: one drawn mask applies to image, pseudo-label, entropy and reliability."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from u2pl.structures import IGNORE_INDEX, PseudoLabel, Share


@dataclass(frozen=True, slots=True)
class Mix:
    """A drawn mask: a kept pixel stays, any other comes from the partner, the next image of the batch.

    With ``erase`` (CutOut) there is no partner: other pixels become zero in images and features, invalid in
    pseudo-labels.
    """

    keep: Tensor  #: (B, H, W) bool
    erase: bool = False

    def apply(self, tensor: Tensor, labeled: Tensor | None = None) -> Tensor:
        """Mix (B, H, W) or (B, K, h, w). The mask is resized by nearest neighbour if the resolution is lower.

        ``labeled`` holds the same values of the labeled images. Only a mix that takes pixels from them uses it.
        """
        other = torch.zeros_like(tensor) if self.erase else tensor.roll(-1, dims=0)
        return torch.where(fit_mask(self.keep, tensor), tensor, other)

    def pseudo_label(self, pseudo: PseudoLabel) -> PseudoLabel:
        """The pseudo-label of the mixed image. Pixels keep the reliability that they had before mixing."""
        names = ("label", "entropy", "confidence", "valid", "reliable", "unreliable")
        return replace(pseudo, **{name: self.apply(getattr(pseudo, name)) for name in names})

    def true_label(self) -> Tensor:
        """(B, H, W) int64: the label of mixed pixels that come from labeled images, IGNORE_INDEX elsewhere."""
        return torch.full_like(self.keep, IGNORE_INDEX, dtype=torch.long)


@dataclass(frozen=True, slots=True)
class Paste:
    """Drawn pixels of source images. They replace the pixels of other images at the same place."""

    take: Tensor  #: (B, H, W) bool

    def apply(self, tensor: Tensor, source: Tensor) -> Tensor:
        """Paste (B, H, W) or (B, K, h, w). The mask is resized by nearest neighbour if the resolution is lower."""
        return torch.where(fit_mask(self.take, tensor), source, tensor)

    def pseudo_label(self, pseudo: PseudoLabel, label: Tensor) -> PseudoLabel:
        """The pseudo-label, where pasted pixels have their true (B, H, W) label: certain, valid and reliable."""
        return replace(
            pseudo,
            label=self.apply(pseudo.label, label),
            entropy=pseudo.entropy.masked_fill(self.take, 0.0),
            confidence=pseudo.confidence.masked_fill(self.take, 1.0),
            valid=pseudo.valid | self.take,
            reliable=pseudo.reliable | self.take,
            unreliable=pseudo.unreliable & ~self.take,
        )


class Mixing(Protocol):
    """Draws a mask for a batch of unlabeled images."""

    def draw(self, pseudo: PseudoLabel, label: Tensor | None = None) -> Mix:
        """Draw with torch's global generator on the device of ``pseudo``, without waiting for the device.

        ``label`` (B_l, H, W) int64 is the label of the labeled images, for a mixing that takes pixels from them.
        """


def fit_mask(mask: Tensor, tensor: Tensor) -> Tensor:
    """A (B, H, W) bool mask at the resolution of a (B, h, w) or (B, K, h, w) tensor, in a shape that broadcasts."""
    if tensor.shape[-2:] != mask.shape[-2:]:
        mask = F.interpolate(mask.unsqueeze(1).float(), size=tensor.shape[-2:]).squeeze(1).bool()
    return mask if tensor.dim() == 3 else mask.unsqueeze(1)


def box_sides(random: Tensor, height: int, width: int, *, area: float) -> tuple[Tensor, Tensor]:
    """Height and width in pixels of boxes that cover the share ``area``. ``random`` in [0, 1) sets their shape."""
    box_width = width * (area + (1 - area) * random)  # between a share `area` of the width and all of it
    return area * height * width / box_width, box_width


def inside_boxes(top: Tensor, left: Tensor, sides: tuple[Tensor, Tensor], *, height: int, width: int) -> Tensor:
    """(B, H, W) bool, true where the centre of a pixel lies in its image's box. Inputs are (B, 1, 1), in pixels."""
    rows = torch.arange(height, device=top.device).view(1, -1, 1) + 0.5
    columns = torch.arange(width, device=top.device).view(1, 1, -1) + 0.5
    inside_rows = (rows >= top) & (rows < top + sides[0])
    return inside_rows & (columns >= left) & (columns < left + sides[1])


def random_boxes(batch: int, height: int, width: int, *, area: float, device: torch.device) -> Tensor:
    """(B, H, W) bool, true inside one random box per image that covers the share ``area`` of the image."""
    random = torch.rand(3, batch, 1, 1, device=device)
    sides = box_sides(random[0], height, width, area=area)
    top, left = (height - sides[0]) * random[2], (width - sides[1]) * random[1]
    return inside_boxes(top, left, sides, height=height, width=width)


def present_classes(label: Tensor, num_classes: int) -> Tensor:
    """(B, C) float, 1 for each class that a (B, H, W) int64 label contains. An ignored pixel has no class."""
    label = label.flatten(1).clamp(max=num_classes)
    return torch.zeros(len(label), num_classes + 1, device=label.device).scatter_(1, label, 1.0)[:, :-1]


def half_of(present: Tensor) -> Tensor:
    """(B, C) bool: a random half, rounded up, of the classes that are 1 in (B, C) float."""
    # Present classes come first, in random order; absent classes follow.
    order = torch.rand_like(present).sub_(present).argsort(dim=1)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places) < (present.sum(dim=1, keepdim=True) / 2).ceil()


def pixels_of(chosen: Tensor, label: Tensor) -> Tensor:
    """(B, H, W) bool: true where a (B, H, W) label is one of the (B, C) bool ``chosen`` classes of its image."""
    num_classes = chosen.shape[1]
    table = F.pad(chosen, (0, 1))  # the last column, False, is for ignored pixels
    return table.gather(1, label.flatten(1).clamp(max=num_classes)).view_as(label)


@dataclass(frozen=True, slots=True)
class CutOut:
    """Erases a random box (DeVries & Taylor 2017). Its pixels no longer train.

    Args:
        area: share of the image that the box covers.
    """

    area: Share = 0.5

    def draw(self, pseudo: PseudoLabel, label: Tensor | None = None) -> Mix:
        return Mix(~random_boxes(*pseudo.label.shape, area=self.area, device=pseudo.label.device), erase=True)


@dataclass(frozen=True, slots=True)
class CutMix:
    """Fills a random box from the next image (Yun et al. 2019; French et al. 2020).

    Args:
        area: share of the image that the box covers.
    """

    area: Share = 0.5

    def draw(self, pseudo: PseudoLabel, label: Tensor | None = None) -> Mix:
        return Mix(~random_boxes(*pseudo.label.shape, area=self.area, device=pseudo.label.device))


@dataclass(frozen=True, slots=True)
class NoMixing:
    """Leaves every image as it is."""

    def draw(self, pseudo: PseudoLabel, label: Tensor | None = None) -> Mix:
        return Mix(torch.ones_like(pseudo.label, dtype=torch.bool))


@dataclass(frozen=True, slots=True)
class ClassMix:
    """Keeps half of the classes predicted in an image and fills the rest from the next image (Olsson et al. 2021)."""

    num_classes: int

    def draw(self, pseudo: PseudoLabel, label: Tensor | None = None) -> Mix:
        return Mix(pixels_of(half_of(present_classes(pseudo.label, self.num_classes)), pseudo.label))
