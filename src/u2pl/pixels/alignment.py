"""Distribution alignment of pseudo-labels (ReMixMatch, Berthelot et al. 2020, arXiv 1911.09785)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn

from u2pl.structures import IGNORE_INDEX, Share


class DistributionAlignment(nn.Module):
    """Multiplies the teacher's probability of a class by the ratio of its frequencies in labels and in predictions.

    Two running distributions over classes are saved with the method: of labeled pixels, and of the teacher's mean
    probabilities for unlabeled pixels. Each is a mean over steps. Its momentum at the k-th step is ``m = min(1 - 1/k,
    momentum)``, so the first step sets it. A step without a pixel does not count. On logits the product is an added
    logarithm.

    Args:
        num_classes: C.
        momentum: largest momentum of the running class distributions (ReMixMatch averages 128 batches).
        bound: largest factor of a probability; the smallest is its inverse, so that classes without labels survive.
        reduce: sums a tensor over processes, so that all have the same distributions.
    """

    labeled: Tensor  #: (C,) float32, of labels; sums to 1 after the first labeled pixel
    predicted: Tensor  #: (C,) float32, of predictions; sums to 1 after the first valid pixel
    steps: Tensor  #: (2,) int64, steps counted in ``labeled`` and in ``predicted``

    def __init__(
        self,
        num_classes: int,
        *,
        momentum: Share = 0.99,
        bound: Annotated[float, Interval(ge=1, le=1e6)] = 10.0,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.momentum, self.bound, self.reduce = momentum, bound, reduce
        self.register_buffer("labeled", torch.zeros(num_classes))
        self.register_buffer("predicted", torch.zeros(num_classes))
        self.register_buffer("steps", torch.zeros(2, dtype=torch.long))

    @torch.no_grad()
    def observe(self, label: Tensor) -> None:
        """Update the distribution of labels with the (B, H, W) int64 labels of a step."""
        pixels = label.flatten()
        count = torch.zeros(IGNORE_INDEX + 1, dtype=torch.long, device=label.device)
        count.scatter_add_(0, pixels, torch.ones_like(pixels))  # unlike bincount, it does not wait for the device
        self._follow(self.labeled, self.steps[:1], count[: len(self.labeled)].float())

    @torch.no_grad()
    def forward(self, logits: Tensor, valid: Tensor | None = None) -> Tensor:
        """Align (B, C, H, W) logits of the teacher, after they update the distribution of predictions.

        Pixels where ``valid`` (B, H, W) bool is False do not count.
        """
        mass = logits.float().softmax(dim=1)
        if valid is not None:
            mass = mass.where(valid.unsqueeze(1), 0.0)
        self._follow(self.predicted, self.steps[1:], mass.sum(dim=(0, 2, 3)))
        return logits + self.log_ratio().view(1, -1, 1, 1)

    def log_ratio(self) -> Tensor:
        """(C,) float32: logarithm of the factor for each class's probability; 0 until both distributions exist."""
        tiny = 1e-8  # the factor of a class without any mass is 1
        ratio = self.labeled.clamp(min=tiny).log() - self.predicted.clamp(min=tiny).log()
        bound = math.log(self.bound)
        return ratio.clamp(-bound, bound) * (self.steps > 0).all()

    def _follow(self, running: Tensor, steps: Tensor, mass: Tensor) -> None:
        """Move a running distribution towards the (C,) ``mass`` of a step, in place."""
        mass = mass if self.reduce is None else self.reduce(mass)
        total = mass.sum()
        fresh = (total > 0) & total.isfinite()  # a step that overflowed must not enter the mean
        steps += fresh
        momentum = (1 - 1 / steps.clamp(min=1)).clamp(max=self.momentum)
        moved = (mass / total.clamp(min=1e-8)).lerp(running, momentum)
        running.copy_(torch.where(fresh, moved, running))
