"""Diagnosis of training at every evaluation: the counts of a method, and the gradient of each of its losses.

It has no side effects: weights and losses are the same with and without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.data.batches import step_seed
from u2pl.methods.base import Method
from u2pl.structures import Batch, Crops

_DIAGNOSIS_STREAM = 4  # keeps the random numbers of a diagnosis apart from those of a step
_SCALE = 1024.0  # keeps half precision from rounding gradients to zero; a power of two changes nothing else


@dataclass(frozen=True)
class Diagnosis:
    """The data of a diagnosis."""

    classes: Sequence[str]
    batches: Callable[[], Iterable[Crops]]  #: few, and the same at every evaluation; they do not train
    views: Callable[[Crops], Batch]  #: makes the batch on the device, as in training


def diagnose(
    fabric: Fabric,
    diagnosis: Diagnosis,
    *,
    student: nn.Module,
    method: Method,
    progress: float,
    loss_weights: Mapping[str, float],
    seed: int,
) -> dict[str, float | None]:
    """Numbers by name, over all processes: shares from 0 to 1, None if there is nothing to divide by.

    Args:
        student: not wrapped for distributed training, whose hooks expect that each forward pass belongs to a step.
        progress: of the last step.
        loss_weights: as in training.
    """
    total: dict[str, Tensor] = {}
    first: Batch | None = None
    with untouched(fabric, student, method):
        for number, drawn in enumerate(diagnosis.batches()):
            batch = diagnosis.views(fabric.to_device(drawn))
            first = batch if first is None else first
            student.train()
            torch.manual_seed(step_seed(seed, _DIAGNOSIS_STREAM, number, fabric.global_rank))
            with fabric.autocast():
                counts = method.diagnose(student, batch, progress)
            total |= {name: total.get(name, 0) + count for name, count in counts.items()}
    values = shares({name: all_reduce(fabric, count, "sum") for name, count in total.items()}, diagnosis.classes)
    if first is None:
        return values
    with untouched(fabric, student, method):
        student.train()
        torch.manual_seed(step_seed(seed, _DIAGNOSIS_STREAM, 0, fabric.global_rank))
        with fabric.autocast():
            losses = method(student, first, progress)
        weighted = {name: loss_weights.get(name, 1.0) * loss for name, loss in losses.items()}
        trained = [each for each in student.parameters() if each.requires_grad]
        norms = gradient_norms(weighted, trained, mean=lambda one: all_reduce(fabric, one, "mean"))
    return values | gradient_shares(norms)


@contextmanager
def untouched(fabric: Fabric, *modules: nn.Module) -> Iterator[None]:
    """Restore weights, buffers, modes and random numbers at the end."""
    saved = [{name: _kept(value) for name, value in module.state_dict().items()} for module in modules]
    modes = [(part, part.training) for module in modules for part in module.modules()]
    cuda = fabric.device.type == "cuda"
    try:
        with torch.random.fork_rng(devices=[fabric.device] if cuda else []):
            yield
    finally:
        for module, state in zip(modules, saved, strict=True):
            module.load_state_dict(state)
        for part, mode in modes:
            part.training = mode


def _kept(value: Any) -> Any:
    """A copy on the host: memory banks are large, and the device memory is full during a step."""
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def gradient_norms(
    losses: Mapping[str, Tensor], parameters: Sequence[Tensor], *, mean: Callable[[Tensor], Tensor] = lambda one: one
) -> dict[str, float]:
    """Euclidean norm of each loss's gradient over all parameters; zero if the loss does not depend on them.

    Args:
        losses: scalars of one graph, weighted as in training.
        mean: averages a gradient over processes, as training does.
    """
    norms = {}
    for name, loss in losses.items():
        gradients: Sequence[Tensor | None] = [None] * len(parameters)
        if loss.requires_grad:
            gradients = torch.autograd.grad(_SCALE * loss, parameters, retain_graph=True, allow_unused=True)
        known = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        norms[name] = mean(torch.cat([gradient.flatten().float() for gradient in known])).norm().item() / _SCALE
    return norms


def gradient_shares(norms: Mapping[str, float]) -> dict[str, float | None]:
    """``gradient/NAME/norm``, and ``gradient/NAME/share``, its share of the sum of all norms."""
    total = sum(norms.values())
    values = {f"gradient/{name}/norm": norm if math.isfinite(norm) else None for name, norm in norms.items()}
    return values | {f"gradient/{name}/share": _ratio(norm, total) for name, norm in norms.items()}


def shares(counts: Mapping[str, Tensor], classes: Sequence[str]) -> dict[str, float | None]:
    """Quotients of the counts of :meth:`~u2pl.methods.base.Method.diagnose`, by NAME and NAME/CLASS."""
    values: dict[str, float | None] = {}
    for name, count in counts.items():
        part, whole = count.tolist()
        if isinstance(part, list):
            by_class = zip(classes, part, whole, strict=True)
            values |= {f"{name}/{label}": _ratio(some, most) for label, some, most in by_class}
            part, whole = sum(part), sum(whole)
        values[name] = _ratio(part, whole)
    return values


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if 0 < whole < math.inf else None


def all_reduce(fabric: Fabric, tensor: Tensor, how: str) -> Tensor:
    """Reduce a tensor over all processes."""
    return fabric.all_reduce(tensor, reduce_op=how)  # type: ignore[return-value]
