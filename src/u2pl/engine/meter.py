"""Mean losses between two reports, and the first step at which a number was not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from u2pl.errors import InputError
from u2pl.structures import Reduce

Item = TypeVar("Item")
_NEVER = 2**62  # a step that no training reaches
GRADIENT = "gradient"


class Meter:
    """Mean losses and speed since the last reading. Numbers stay on the device until they are read.

    ``average`` averages a tensor over processes; None: there is one.
    """

    def __init__(self, average: Reduce | None = None) -> None:
        self.average = average
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}  # a step may lack a loss
        self.first: dict[str, Tensor] = {}  # first step at which a term was not finite
        self.steps, self.since, self.waited = 0, time.perf_counter(), 0.0

    def timed(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items. Counts the seconds that pass until each is there."""
        source = iter(items)
        while True:
            began = time.perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            self.waited += time.perf_counter() - began
            yield item

    def add(
        self,
        losses: Mapping[str, Tensor],
        *,
        step: int = 0,
        weights: Mapping[str, float] | None = None,
        gradient: Tensor | None = None,
    ) -> None:
        """Add the losses of one step.

        Args:
            step: counted from 0.
            weights: of the losses in their sum, which must be finite, too; 1 where a name is missing.
            gradient: norm of the step's gradient; None: not checked.
        """
        terms = {}
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0) + loss.detach()
            self.counts[name] = self.counts.get(name, 0) + 1
            terms[name] = loss.detach().float() * (weights or {}).get(name, 1.0)
        if gradient is not None:
            terms[GRADIENT] = gradient.detach().float()
        # One small tensor for all terms: a kernel for each would cost more than the losses themselves.
        finite = torch.stack(list(terms.values())).isfinite()
        for name, bad in zip(terms, torch.where(finite, _NEVER, step).unbind(), strict=True):
            before = self.first.get(name)
            self.first[name] = bad if before is None else torch.minimum(before, bad)
        self.steps += 1

    def share(self) -> None:
        """Replace the sums by their means over all processes, which call this at the same steps."""
        if self.average is not None and self.sums:
            means = self.average(torch.stack([total.float() for total in self.sums.values()]))
            self.sums = dict(zip(self.sums, means.unbind(), strict=True))

    def read(self) -> dict[str, float]:
        """Means by name, ``steps_per_second``, and ``waiting``, the share of time without data. Starts over."""
        means = {f"loss/{name}": (total / self.counts[name]).item() for name, total in self.sums.items()}
        seconds = time.perf_counter() - self.since
        means |= {"steps_per_second": self.steps / seconds, "waiting": min(1.0, self.waited / seconds)}
        self.__init__(self.average)  # type: ignore[misc]
        return means

    def not_finite(self) -> tuple[str, int, bool] | None:
        """The term that first was not finite, its step, and whether only its weight made it so. None: all were."""
        firsts = {name: int(step) for name, step in self.first.items()}
        bad = {name: step for name, step in firsts.items() if step < _NEVER}
        if not bad:
            return None
        losses = {name: step for name, step in bad.items() if name != GRADIENT}
        name = min(losses or bad, key=lambda each: bad[each])
        return name, bad[name], name != GRADIENT and math.isfinite(self.sums[name].item())

    def state_dict(self) -> dict[str, Any]:
        """The sums that are not read yet, so that a resumed run reports the same means."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number of these tensors is finite; one wait for the device."""
    floating = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    largest = torch._foreach_norm(floating, math.inf)
    return bool(torch.stack([each.float() for each in largest]).isfinite().all())


def diverged(meter: Meter, tensors: Iterable[Tensor], *, step: int, saved: int | None, folder: object) -> None:
    """Raise InputError if training has diverged: its weights are not worth scoring or saving.

    Args:
        tensors: the weights and statistics of the networks.
        step: number of steps done.
        saved: step of the weights that the ``folder`` holds; None: there are none.
    """
    found = meter.not_finite()
    if found is None and all_finite(tensors):
        return
    what, when, remedy = "the weights are", step - 1, "lower train.lr"
    if found is not None:
        name, when, weight = found
        what = "the gradient is" if name == GRADIENT else f"the {name} loss is"
        remedy = f"lower method.loss_weights.{name}" if weight else remedy
    kept = "" if saved is None else f"; {folder} keeps the weights of step {saved}"
    raise InputError(f"training diverged: {what} not finite at step {when}{kept}; {remedy}")
