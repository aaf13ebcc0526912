"""When unlabeled images begin to train the student, and how much they weigh."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from u2pl.structures import PseudoLabel


@dataclass(frozen=True, slots=True)
class Schedule:
    """Warm-up, ramp and bound of lambda_u. The defaults are the paper's for Cityscapes; on VOC it warms up an epoch.

    All shares are of the progress of training, t / T.
    """

    warmup: float = 0.0  #: first share of training that is supervised only
    ramp: float = 0.0  #: share over which the weight of L_u grows linearly to one after the warm-up; 0 in the paper
    max_lambda_u: float = math.inf  #: bound of lambda_u, which a floor under reliability lets grow without one

    def is_warmup(self, progress: float) -> bool:
        """Whether training is still supervised only."""
        return progress < self.warmup

    def lambda_u(self, pseudo: PseudoLabel, progress: float) -> Tensor:
        """Scalar: all unlabeled pixels / reliable ones of the batch, times the ramp after the warm-up."""
        lambda_u = pseudo.valid.sum() / pseudo.reliable.sum().clamp(min=1)
        return self.ramped(progress) * lambda_u.clamp(max=self.max_lambda_u)

    def ramped(self, progress: float) -> float:
        """How far the ramp has come, 0 to 1."""
        return min(1.0, (progress - self.warmup) / self.ramp) if self.ramp > 0 else 1.0
