"""A loss that uses unreliable pixels without a memory bank."""

from __future__ import annotations

from torch import Tensor

from u2pl.methods.parts import FurtherLoss, Step
from u2pl.pixels.negative_learning import NegativeLearning


class NegativeLearningLoss(FurtherLoss):
    """Adds ``negative``: the student's logits must rule out the negative classes of unreliable pixels."""

    def __init__(self, negative_learning: NegativeLearning) -> None:
        super().__init__()
        self.negative_learning = negative_learning
        self.negative_keys = negative_learning.negative_keys

    def forward(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """The losses with ``negative``."""
        assert step.keys is not None
        coarse = step.output.labeled_and_mixed.coarse
        return losses | {"negative": self.negative_learning(coarse, step.keys.rank, step.keys.unreliable)}
