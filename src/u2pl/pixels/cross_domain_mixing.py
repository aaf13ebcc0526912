"""ClassMix across domains (DACS, Tranheden et al. 2021, arXiv 2007.08702): labeled pixels on unlabeled images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from u2pl.pixels.mixing import Mix, Paste, half_of, pixels_of, present_classes
from u2pl.structures import IGNORE_INDEX, PseudoLabel


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceMix(Mix):
    """A drawn mask: a kept pixel stays, any other comes with its label from a labeled image."""

    label: Tensor  #: (B, H, W) int64, of the labeled image that each unlabeled image receives from

    def apply(self, tensor: Tensor, labeled: Tensor | None = None) -> Tensor:
        """Paste from ``labeled`` (B_l, H, W) or (B_l, K, h, w), the values of labeled images; see :func:`in_turn`."""
        if labeled is None:
            raise TypeError("pixels come from labeled images: give the same of those")
        return Paste(~self.keep).apply(tensor, in_turn(labeled, len(tensor)))

    def pseudo_label(self, pseudo: PseudoLabel) -> PseudoLabel:
        """The pseudo-label of the mixed image. Pasted pixels get their true label: certain, valid and reliable."""
        return Paste(~self.keep).pseudo_label(pseudo, self.label)

    def true_label(self) -> Tensor:
        """(B, H, W) int64: the label of pasted pixels, IGNORE_INDEX elsewhere."""
        return self.label.masked_fill(self.keep, IGNORE_INDEX)


@dataclass(frozen=True, slots=True)
class CrossDomainClassMix:
    """Pastes all pixels of a random half of a labeled image's classes onto an unlabeled image, at the same place.

    Half is rounded up, so the class of an image with only one class is pasted. Ignored pixels, such as crop padding,
    have no class and are never pasted (the released code of DACS counts them as one). Image i receives from labeled
    image i. If there are fewer labeled images, they repeat.
    """

    num_classes: int

    def draw(self, pseudo: PseudoLabel, label: Tensor | None = None) -> SourceMix:
        """See :class:`u2pl.pixels.mixing.Mixing`. The labels are required."""
        if label is None:
            raise TypeError("classes of labeled images are drawn: give their labels")
        source = in_turn(label, len(pseudo.label))
        chosen = half_of(present_classes(source, self.num_classes))
        return SourceMix(keep=~pixels_of(chosen, source), label=source)


def in_turn(tensor: Tensor, number: int) -> Tensor:
    """The first ``number`` rows of a tensor. A shorter tensor is repeated."""
    if len(tensor) < number:
        tensor = torch.cat([tensor] * -(-number // len(tensor)))
    return tensor[:number]
