"""Strong views by mixing: draw one mask, then apply it to image, pseudo-label, entropy and reliability alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from u2pl.structures import PseudoLabel


@dataclass(frozen=True, slots=True)
class Mix:
    """A drawn mask: a kept pixel is an image's own, any other comes from its partner, the next image of the batch.

    Without partners (CutOut) the other pixels are erased: zero in images and features, invalid in pseudo-labels.
    """

    keep: Tensor  #: (B, H, W) bool
    erase: bool = False

    def apply(self, tensor: Tensor) -> Tensor:
        """Mix (B, H, W) or (B, K, h, w); the mask follows by nearest neighbour where the resolution is lower."""
        other = torch.zeros_like(tensor) if self.erase else tensor.roll(-1, dims=0)
        return torch.where(fit_mask(self.keep, tensor), tensor, other)

    def pseudo_label(self, pseudo: PseudoLabel) -> PseudoLabel:
        """The pseudo-label of the mixed image. The partition was made before mixing and travels with its pixels."""
        names = ("label", "entropy", "confidence", "valid", "reliable", "unreliable")
        return replace(pseudo, **{name: self.apply(getattr(pseudo, name)) for name in names})


class Mixing(Protocol):
    """Draws a mask for a batch of unlabeled images."""

    def draw(self, pseudo: PseudoLabel) -> Mix:
        """Draw from the global generator of torch, on the device of ``pseudo``, without waiting for the device."""


def fit_mask(mask: Tensor, tensor: Tensor) -> Tensor:
    """A (B, H, W) bool mask at the resolution of a (B, h, w) or (B, K, h, w) tensor, ready to broadcast with it."""
    if tensor.shape[-2:] != mask.shape[-2:]:
        mask = F.interpolate(mask.unsqueeze(1).float(), size=tensor.shape[-2:]).squeeze(1).bool()
    return mask if tensor.dim() == 3 else mask.unsqueeze(1)


def box_sides(random: Tensor, height: int, width: int, *, area: float) -> tuple[Tensor, Tensor]:
    """Height and width in pixels of boxes that cover the share ``area``; ``random`` in [0, 1) sets their shape."""
    box_width = width * (area + (1 - area) * random)  # between a share `area` of the width and all of it
    return area * height * width / box_width, box_width


def inside_boxes(top: Tensor, left: Tensor, sides: tuple[Tensor, Tensor], *, height: int, width: int) -> Tensor:
    """(B, H, W) bool, true where the centre of a pixel lies in its image's box; all tensors are (B, 1, 1), pixels."""
    rows = torch.arange(height, device=top.device).view(1, -1, 1) + 0.5
    columns = torch.arange(width, device=top.device).view(1, 1, -1) + 0.5
    inside_rows = (rows >= top) & (rows < top + sides[0])
    return inside_rows & (columns >= left) & (columns < left + sides[1])


def random_boxes(batch: int, height: int, width: int, *, area: float, device: torch.device) -> Tensor:
    """(B, H, W) bool, true inside one random box per image that covers the share ``area`` of it."""
    random = torch.rand(3, batch, 1, 1, device=device)
    sides = box_sides(random[0], height, width, area=area)
    top, left = (height - sides[0]) * random[2], (width - sides[1]) * random[1]
    return inside_boxes(top, left, sides, height=height, width=width)


@dataclass(frozen=True, slots=True)
class CutOut:
    """Erase a random box (DeVries & Taylor 2017); its pixels no longer train."""

    area: float = 0.5

    def draw(self, pseudo: PseudoLabel) -> Mix:
        return Mix(~random_boxes(*pseudo.label.shape, area=self.area, device=pseudo.label.device), erase=True)


@dataclass(frozen=True, slots=True)
class CutMix:
    """Fill a random box from the next image (Yun et al. 2019; French et al. 2020)."""

    area: float = 0.5

    def draw(self, pseudo: PseudoLabel) -> Mix:
        return Mix(~random_boxes(*pseudo.label.shape, area=self.area, device=pseudo.label.device))


@dataclass(frozen=True, slots=True)
class NoMixing:
    """Every image stays as it is."""

    def draw(self, pseudo: PseudoLabel) -> Mix:
        return Mix(torch.ones_like(pseudo.label, dtype=torch.bool))


@dataclass(frozen=True, slots=True)
class ClassMix:
    """Keep half of the classes an image is predicted to hold, fill the rest from the next (Olsson et al. 2021)."""

    num_classes: int

    def draw(self, pseudo: PseudoLabel) -> Mix:
        batch, device = len(pseudo.label), pseudo.label.device
        label = pseudo.label.flatten(1)
        present = torch.zeros(batch, self.num_classes, device=device).scatter_(1, label, 1.0)
        # Present classes draw a place in a random order, absent classes come after them.
        order = torch.rand_like(present).sub_(present).argsort(dim=1)
        place = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=device).expand_as(order))
        chosen = place < (present.sum(dim=1, keepdim=True) / 2).ceil()
        return Mix(chosen.gather(1, label).view_as(pseudo.label))
