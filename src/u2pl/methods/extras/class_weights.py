"""A teacher that was trained to find rare classes says how likely they are."""

from __future__ import annotations

from torch import Tensor

from u2pl.methods.parts import Refiner
from u2pl.methods.strong_views import MixedViews
from u2pl.structures import Batch, SegmentationOutput


class ClassWeightCorrection(Refiner):
    """Divides the teacher's probabilities by the weights that both of its losses give to classes.

    A network trained with weights w_c says ``w_c p(c | pixel)``. Without the correction, pseudo-labels of rare classes
    would weigh once more, and spread.

    Args:
        class_weight: (C,) float, w_c.
    """

    shift: Tensor  #: (1, C) float32, of the logits

    def __init__(self, class_weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", -class_weight.float().log().unsqueeze(0), persistent=False)

    def forward(self, output: SegmentationOutput, batch: Batch, mixed: MixedViews | None = None) -> SegmentationOutput:
        """Corrects all images alike."""
        return output.shifted(self.shift)
