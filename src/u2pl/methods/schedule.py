"""When unlabeled images begin to train the student."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Warm-up and ramp. The defaults are the paper's for Cityscapes; on VOC it warms up an epoch.

    All shares are of the progress of training, t / T.
    """

    warmup: float = 0.0  #: first share of training that is supervised only
    ramp: float = 0.0  #: share over which the weight of L_u grows linearly to one after the warm-up; 0 in the paper

    def is_warmup(self, progress: float) -> bool:
        """Whether training is still supervised only."""
        return progress < self.warmup

    def ramped(self, progress: float) -> float:
        """How far the ramp has come, 0 to 1."""
        return min(1.0, (progress - self.warmup) / self.ramp) if self.ramp > 0 else 1.0
