"""Refiner that removes the class weights of the losses from the teacher's probabilities."""

from __future__ import annotations

from torch import Tensor

from u2pl.methods.parts import Refiner
from u2pl.methods.strong_views import MixedViews
from u2pl.structures import Batch, SegmentationOutput


class ClassWeightCorrection(Refiner):
    """Divides the teacher's probabilities by the class weights that both of its losses use.

    A network trained with weights w_c predicts ``w_c p(c | pixel)``. Without the correction, pseudo-labels would apply
    the weights a second time, and rare classes would spread.

    Args:
        class_weight: (C,) float, w_c.
    """

    shift: Tensor  #: (1, C) float32, added to the logits

    def __init__(self, class_weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", -class_weight.float().log().unsqueeze(0), persistent=False)

    def forward(self, output: SegmentationOutput, batch: Batch, mixed: MixedViews | None = None) -> SegmentationOutput:
        """Correct all images."""
        return output.shifted(self.shift)
