"""When unlabeled images begin to train the student."""

from __future__ import annotations

from dataclasses import dataclass

from u2pl.structures import Share


@dataclass(frozen=True, slots=True)
class Schedule:
    """Warm-up and ramp. The defaults are the paper's for Cityscapes; on VOC the paper warms up for one epoch.

    Args:
        warmup: share of training, at its start, that uses only labels.
        ramp: share of training, after the warm-up, over which the weight of L_u rises; 0 in the paper.
    """

    warmup: Share = 0.0
    ramp: Share = 0.0

    def is_warmup(self, progress: float) -> bool:
        """Whether training is still supervised only."""
        return progress < self.warmup

    def ramped(self, progress: float) -> float:
        """Position on the ramp, from 0 to 1."""
        return min(1.0, (progress - self.warmup) / self.ramp) if self.ramp > 0 else 1.0
