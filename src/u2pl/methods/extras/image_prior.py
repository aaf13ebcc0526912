"""Pseudo-labels that know which classes an image shows as a whole."""

from __future__ import annotations

import torch.nn.functional as F

from u2pl.methods.parts import Refiner
from u2pl.methods.strong_views import MixedViews
from u2pl.structures import Batch, SegmentationOutput


class AddImagePrior(Refiner):
    """Adds the prior of an image to the logits of its pixels: p(c | pixel) p(c in image).

    The prior comes with the batch, see :mod:`u2pl.pixels.image_prior`. It shifts logits and coarse scores alike:
    pseudo-labels, their reliability and the ranks of keys know of it.
    """

    def forward(self, output: SegmentationOutput, batch: Batch, mixed: MixedViews | None = None) -> SegmentationOutput:
        """Adds to the weak images; a mixed image is of several, and stays as it is."""
        if batch.prior is None or mixed is not None:
            return output
        return output.shifted(F.pad(batch.prior, (0, 0, len(output.logits) - len(batch.prior), 0)))
