"""The teacher: an exponential moving average of the student."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from u2pl.structures import SegmentationOutput, Share


class EmaTeacher(nn.Module):
    """A copy of the student whose weights are averaged over the student's past (Tarvainen & Valpola 2017).

    The momentum is ``m = min(1 - 1/(k+1), ema_decay)`` after k updates. Buffers, such as batch-norm statistics, are
    averaged like the weights: the student's own statistics do not fit averaged weights.

    Args:
        network: the student, freshly built; the teacher is a copy of it.
        ema_decay: largest momentum of the teacher's moving average.
        passes: 2: a second teacher pass on mixed images, as released; 1: mix its output for weak images, which is
            faster.
    """

    def __init__(self, network: nn.Module, *, ema_decay: Share = 0.99, passes: Literal[1, 2] = 2) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.ema_decay, self.passes = ema_decay, passes
        self.updates = 0
        self.started = False

    @torch.no_grad()
    def forward(self, image: Tensor) -> SegmentationOutput:
        """The teacher's output for (B, 3, H, W) images, in evaluation mode, without gradient."""
        return self.network(image)

    def train(self, mode: bool = True) -> EmaTeacher:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def start(self, student: nn.Module) -> None:
        """Copy the student once. Later calls do nothing."""
        if not self.started:
            for own, other in self._pairs(student):
                own.copy_(other)
            self.started = True

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Update the average with the student."""
        weight = 1 - min(1 - 1 / (self.updates + 1), self.ema_decay)
        pairs = self._pairs(student)
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in floating], [other for _, other in floating], weight)
        for own, other in pairs:
            if not own.is_floating_point():  # counters
                own.copy_(other)
        self.updates += 1

    def _pairs(self, student: nn.Module) -> list[tuple[Tensor, Tensor]]:
        parameters = zip(self.network.parameters(), student.parameters(), strict=True)
        return [*parameters, *zip(self.network.buffers(), student.buffers(), strict=True)]

    def get_extra_state(self) -> dict[str, int | bool]:
        return {"updates": self.updates, "started": self.started}

    def set_extra_state(self, state: dict[str, int | bool]) -> None:
        self.updates, self.started = int(state["updates"]), bool(state["started"])
