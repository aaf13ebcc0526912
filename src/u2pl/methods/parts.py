"""The two kinds of optional parts of a method: refiners of the teacher's output, and further losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from u2pl.methods.keys import Keys
from u2pl.methods.passes import StudentOutput
from u2pl.methods.strong_views import MixedViews
from u2pl.pixels.negative_keys import NegativeKeys
from u2pl.structures import Batch, PseudoLabel, SegmentationOutput


class Refiner(nn.Module):
    """Changes the teacher's output before it becomes pseudo-labels and keys."""

    def observe(self, batch: Batch) -> None:
        """Called with every batch before its step, also during the warm-up."""

    def forward(self, output: SegmentationOutput, batch: Batch, mixed: MixedViews | None = None) -> SegmentationOutput:
        """Refine the teacher's output.

        Args:
            output: without ``mixed``, for the weak images, which may follow the labeled ones; with ``mixed``, for
                labeled and mixed images.
        """
        raise TypeError(f"{type(self).__name__} refines nothing")


class Refiners(nn.ModuleList):
    """Several refiners, one after the other."""

    def observe(self, batch: Batch) -> None:
        """Pass a batch to each of them."""
        for refiner in self:
            refiner.observe(batch)  # type: ignore[operator]

    @torch.no_grad()
    def forward(self, output: SegmentationOutput, batch: Batch, mixed: MixedViews | None = None) -> SegmentationOutput:
        """The output after all refiners; see :class:`Refiner`."""
        for refiner in self:
            output = refiner(output, batch, mixed)
        return output


@dataclass(frozen=True, slots=True)
class Step:
    """The inputs of a further loss. During the warm-up there are no unlabeled images."""

    batch: Batch
    output: StudentOutput
    pseudo: PseudoLabel | None = None  #: (B_u, H, W), for the weak images
    mixed: MixedViews | None = None
    keys: Keys | None = None  #: None unless a part of the method uses them
    #: Further images (B, 3, H, W) -> the student's output for them, see :func:`u2pl.methods.passes.further_pass`
    predict: Callable[[Tensor], SegmentationOutput] | None = None


class FurtherLoss(nn.Module):
    """A loss that is not in the papers of the methods."""

    in_warmup = False  #: whether it also trains during the warm-up
    drops_features = False  #: whether the student also gets the weak images, plain and with dropped features
    negative_keys: NegativeKeys | None = None  #: selects unreliable pixels, if the loss needs :class:`Keys`

    def forward(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """The losses of the step by name, with this one added or merged into another."""
        raise TypeError(f"{type(self).__name__} has no loss")
