"""The teacher: an exponential moving average of the student."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from u2pl.methods.frozen_features import frozen_features
from u2pl.networks.encoded import Encoded
from u2pl.networks.freezing import frozen_parts
from u2pl.structures import SegmentationOutput, Share


class EmaTeacher(nn.Module):
    """A copy of the student whose weights are averaged over the student's past (Tarvainen & Valpola 2017).

    The momentum is ``m = min(1 - 1/(k+1), ema_decay)`` after k updates. Buffers, such as batch-norm statistics, are
    averaged like the weights: the student's own statistics do not fit averaged weights.

    What is frozen in the student is not copied: both have the same objects. They are saved with the student only. If
    the whole encoder is frozen, its features of an image are computed once for both.

    Args:
        network: the student, freshly built; the teacher is a copy of it.
        ema_decay: largest momentum of the teacher's moving average.
        passes: 2: a second teacher pass on mixed images, as released; 1: mix its output for weak images, which is
            faster.
    """

    def __init__(self, network: nn.Module, *, ema_decay: Share = 0.99, passes: Literal[1, 2] = 2) -> None:
        super().__init__()
        uncopied = {id(part): part for part in frozen_parts(network)}
        self.network = copy.deepcopy(network, uncopied).requires_grad_(False).eval()
        theirs = {id(tensor) for tensor in chain(network.parameters(), network.buffers())}
        self.shared = frozenset(name for name, tensor in self._tensors() if id(tensor) in theirs)
        self.features = frozen_features(self.network)
        self.ema_decay, self.passes = ema_decay, passes
        self.updates = 0
        self.started = False
        self.register_state_dict_post_hook(_leave_out_shared)
        self.register_load_state_dict_pre_hook(_keep_shared)

    @torch.no_grad()
    def forward(self, *images: Tensor) -> SegmentationOutput:
        """The teacher's output for (B_1, 3, H, W), (B_2, 3, H, W), ... images, in evaluation mode, without gradient."""
        return self.network(self.joined(*images))

    def joined(self, *images: Tensor) -> Tensor | Encoded:
        """What the networks get of several batches of images: their features if both share the encoder."""
        if self.features is not None:
            return self.features(*images)
        return torch.cat(images) if len(images) > 1 else images[0]

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
        """Each tensor of the teacher that is its own, with that of the student."""
        pairs = zip(self._tensors(), chain(student.parameters(), student.buffers()), strict=True)
        return [(own, other) for (name, own), other in pairs if name not in self.shared]

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        return chain(self.network.named_parameters(), self.network.named_buffers())

    def get_extra_state(self) -> dict[str, int | bool]:
        return {"updates": self.updates, "started": self.started}

    def set_extra_state(self, state: dict[str, int | bool]) -> None:
        self.updates, self.started = int(state["updates"]), bool(state["started"])


def _leave_out_shared(teacher: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Remove what the student's state has already."""
    for name in teacher.shared:
        state.pop(f"{prefix}network.{name}", None)


def _keep_shared(teacher: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Load what the state leaves out from the teacher itself."""
    for name, tensor in teacher.network.state_dict().items():
        if name in teacher.shared:
            state[f"{prefix}network.{name}"] = tensor
