"""Refiner that denoises pseudo-labels by the distance to class prototypes."""

from __future__ import annotations

from dataclasses import replace

import torch

from u2pl.methods.parts import Refiner
from u2pl.methods.strong_views import MixedViews
from u2pl.pixels.prototypes import PrototypicalDenoising
from u2pl.structures import Batch, SegmentationOutput


class DenoisePseudoLabels(Refiner):
    """Prototypical denoising (ProDA) of the logits for pseudo-labels. Keys stay unchanged."""

    def __init__(self, denoising: PrototypicalDenoising) -> None:
        super().__init__()
        self.denoising = denoising

    def forward(self, output: SegmentationOutput, batch: Batch, mixed: MixedViews | None = None) -> SegmentationOutput:
        """Denoise the weak images, which come last, by their embeddings."""
        if mixed is not None:
            return output
        weak, _ = batch.unlabeled_views()
        assert output.embedding is not None
        denoised = self.denoising(output.logits[-len(weak) :], output.embedding[-len(weak) :])
        return replace(output, logits=torch.cat((output.logits[: -len(weak)], denoised)))
