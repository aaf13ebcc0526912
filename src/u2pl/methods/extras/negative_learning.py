"""What unreliable pixels teach without a memory bank."""

from __future__ import annotations

from torch import Tensor

from u2pl.methods.parts import FurtherLoss, Step
from u2pl.pixels.negative_learning import NegativeLearning


class NegativeLearningLoss(FurtherLoss):
    """Adds ``negative``: unreliable pixels are not of the classes they are sure not to be, in the space of logits."""

    def __init__(self, negative_learning: NegativeLearning) -> None:
        super().__init__()
        self.negative_learning = negative_learning
        self.negative_keys = negative_learning.negative_keys

    def forward(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """The losses with ``negative``."""
        assert step.keys is not None
        coarse = step.output.labeled_and_mixed.coarse
        return losses | {"negative": self.negative_learning(coarse, step.keys.rank, step.keys.unreliable)}
