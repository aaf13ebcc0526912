"""When unlabeled images begin to train the student."""

from __future__ import annotations

from dataclasses import dataclass

from u2pl.structures import Share


@dataclass(frozen=True, slots=True)
class Schedule:
    """Warm-up and ramp. The defaults are the paper's for Cityscapes; on VOC it warms up an epoch.

    Args:
        warmup: first share of training that uses labels alone.
        ramp: share of training after it over which the weight of L_u grows to its value; 0 in the paper.
    """

    warmup: Share = 0.0
    ramp: Share = 0.0

    def is_warmup(self, progress: float) -> bool:
        """Whether training is still supervised only."""
        return progress < self.warmup

    def ramped(self, progress: float) -> float:
        """How far the ramp has come, 0 to 1."""
        return min(1.0, (progress - self.warmup) / self.ramp) if self.ramp > 0 else 1.0
