"""Refiner that adds the image prior: which classes an image shows as a whole."""

from __future__ import annotations

import torch.nn.functional as F

from u2pl.methods.parts import Refiner
from u2pl.methods.strong_views import MixedViews
from u2pl.structures import Batch, SegmentationOutput


class AddImagePrior(Refiner):
    """Adds the prior of an image to the logits of its pixels: p(c | pixel) p(c in image).

    The prior comes with the batch, see :mod:`u2pl.pixels.image_prior`. It shifts logits and coarse scores alike, so it
    affects pseudo-labels, their reliability and the ranks of keys.
    """

    def forward(self, output: SegmentationOutput, batch: Batch, mixed: MixedViews | None = None) -> SegmentationOutput:
        """Add it to the weak images. A mixed image consists of several images and stays unchanged."""
        if batch.prior is None or mixed is not None:
            return output
        return output.shifted(F.pad(batch.prior, (0, 0, len(output.logits) - len(batch.prior), 0)))
