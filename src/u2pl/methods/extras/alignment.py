"""Refiner that gives pseudo-labels the class frequencies of labels."""

from __future__ import annotations

from dataclasses import replace

import torch

from u2pl.methods.parts import Refiner
from u2pl.methods.strong_views import MixedViews
from u2pl.pixels.alignment import DistributionAlignment
from u2pl.structures import Batch, SegmentationOutput


class AlignPseudoLabels(Refiner):
    """Distribution alignment (ReMixMatch) of the logits for pseudo-labels. Keys stay unchanged."""

    def __init__(self, alignment: DistributionAlignment) -> None:
        super().__init__()
        self.alignment = alignment

    def observe(self, batch: Batch) -> None:
        """Count the labels of every step."""
        self.alignment.observe(batch.label)

    def forward(self, output: SegmentationOutput, batch: Batch, mixed: MixedViews | None = None) -> SegmentationOutput:
        """Align the weak images, which come last."""
        if mixed is not None:
            return output
        weak, _ = batch.unlabeled_views()
        aligned = self.alignment(output.logits[-len(weak) :], batch.valid)
        return replace(output, logits=torch.cat((output.logits[: -len(weak)], aligned)))
