"""Distribution alignment (ReMixMatch, Berthelot et al. 2020, arXiv 1911.09785): pseudo-labels as frequent as labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from u2pl.structures import IGNORE_INDEX, Above0, Share


class DistributionAlignment(nn.Module):
    """Multiplies the teacher's probabilities by how much more frequent a class is among labels than in its predictions.

    Two running distributions over classes, of labeled pixels and of the teacher's mean probability on unlabeled ones,
    are saved with the method. Each is a mean of steps with momentum ``m = min(1 - 1/k, momentum)`` at its k-th, so it
    starts as that of its first step; a step without a pixel is none. In logits the product is an added logarithm.

    Args:
        num_classes: C.
        momentum: largest momentum of the running distributions (ReMixMatch: 128 batches).
        bound: a probability is multiplied by at most this, and at least by its inverse; else a class without a label
            would be lost for good.
        reduce: sums a tensor over processes, so that all hold the same distributions.
    """

    labeled: Tensor  #: (C,) float32, sums to one once there was a labeled pixel
    predicted: Tensor  #: (C,) float32, likewise
    steps: Tensor  #: (2,) int64, of ``labeled`` and of ``predicted``

    def __init__(
        self,
        num_classes: int,
        *,
        momentum: Share = 0.99,
        bound: Above0 = 10.0,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.momentum, self.bound, self.reduce = momentum, bound, reduce
        self.register_buffer("labeled", torch.zeros(num_classes))
        self.register_buffer("predicted", torch.zeros(num_classes))
        self.register_buffer("steps", torch.zeros(2, dtype=torch.long))

    @torch.no_grad()
    def observe(self, label: Tensor) -> None:
        """Account for the (B, H, W) int64 labels of a step."""
        pixels = label.flatten()
        count = torch.zeros(IGNORE_INDEX + 1, dtype=torch.long, device=label.device)
        count.scatter_add_(0, pixels, torch.ones_like(pixels))  # unlike bincount, it does not wait for the device
        self._follow(self.labeled, self.steps[:1], count[: len(self.labeled)].float())

    @torch.no_grad()
    def forward(self, logits: Tensor, valid: Tensor | None = None) -> Tensor:
        """Account for the teacher's (B, C, H, W) logits where (B, H, W) bool ``valid``, and return them aligned."""
        mass = logits.float().softmax(dim=1)
        if valid is not None:
            mass = mass.where(valid.unsqueeze(1), 0.0)
        self._follow(self.predicted, self.steps[1:], mass.sum(dim=(0, 2, 3)))
        return logits + self.log_ratio().view(1, -1, 1, 1)

    def log_ratio(self) -> Tensor:
        """(C,) float32: logarithm of what the probability of each class is multiplied by; 0 until both are known."""
        tiny = 1e-8  # a class that neither shows is left as it is
        ratio = self.labeled.clamp(min=tiny).log() - self.predicted.clamp(min=tiny).log()
        bound = math.log(self.bound)
        return ratio.clamp(-bound, bound) * (self.steps > 0).all()

    def _follow(self, running: Tensor, steps: Tensor, mass: Tensor) -> None:
        """Move a running distribution towards that of the (C,) ``mass`` of a step, in place."""
        mass = mass if self.reduce is None else self.reduce(mass)
        total = mass.sum()
        fresh = (total > 0) & total.isfinite()  # a step that overflowed must not stay in the mean
        steps += fresh
        momentum = (1 - 1 / steps.clamp(min=1)).clamp(max=self.momentum)
        moved = (mass / total.clamp(min=1e-8)).lerp(running, momentum)
        running.copy_(torch.where(fresh, moved, running))
