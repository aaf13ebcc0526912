"""Training on labels only: the baseline for every other method."""

from __future__ import annotations

from torch import Tensor, nn

from u2pl.methods.base import Method, PixelLoss, supervised_losses
from u2pl.pixels.losses import cross_entropy
from u2pl.structures import Batch


class Supervised(Method):
    """Trains on labeled pixels, by default with mean cross-entropy."""

    def __init__(self, *, supervised_loss: PixelLoss = cross_entropy) -> None:
        super().__init__()
        self.label_loss = supervised_loss

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Returns ``supervised`` and, with an auxiliary head, ``auxiliary``."""
        return supervised_losses(student(batch.image), batch.label, self.label_loss)
