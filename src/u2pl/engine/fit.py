"""The training loop. It sums the named losses of a method and does not depend on the method."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from u2pl.data.batches import step_seed
from u2pl.engine.checkpoint import load_state, save_state, save_weights
from u2pl.engine.diagnose import Diagnosis, diagnose
from u2pl.engine.evaluate import Scores
from u2pl.engine.journal import Journal
from u2pl.errors import InputError
from u2pl.methods.base import Method
from u2pl.structures import Batch

_STEP_STREAM = 3  # keeps the random numbers of a step apart from those of its batch


class Watcher(Protocol):
    """Receives the progress in the main process. A progress bar is one."""

    def begin(self, steps: int) -> None: ...

    def step(self, done: int, losses: Mapping[str, float]) -> None: ...

    def evaluated(self, done: int, scores: Mapping[str, Scores]) -> None: ...


@dataclass
class Run:
    """The settings of a training run."""

    folder: Path
    steps: int
    seed: int
    loss_weights: Mapping[str, float]
    description: Mapping[str, Any]  #: saved with the weights, to rebuild the network
    beside: Mapping[str, nn.Module] = field(default_factory=dict)  #: saved with the weights by name; not trained
    eval_every: int = 0  #: 0: only after the last step
    save_every: int = 0
    log_every: int = 10
    watchers: list[Watcher] = field(default_factory=list)


def fit(
    fabric: Fabric,
    run: Run,
    *,
    student: nn.Module,
    method: Method,
    optimizer: Optimizer,
    scheduler: LambdaLR,
    batches: Callable[[int], Iterable[Batch]],
    score: Callable[[nn.Module], Scores] | None,
    diagnosis: Diagnosis | None = None,
    resume: bool = False,
) -> dict[str, Scores]:
    """Train to the last step and return the scores of each candidate network at the end.

    Args:
        student, optimizer: as returned by ``fabric.setup``; ``method`` is on the device already.
        batches: the batches from a step on. Each depends only on its step, so they have no state to resume.
        score: evaluates a network on the validation set; None without one.
        diagnosis: data of the diagnosis at every evaluation; None: no diagnosis.
        resume: continue from ``last.ckpt`` in the run's folder, if it exists.
    """
    state: dict[str, Any] = {"student": student, "method": method, "optimizer": optimizer, "scheduler": scheduler}
    meter = Meter()
    state |= {"meter": meter, "precision": fabric._precision, "step": 0, "best": -1.0}
    if resume and (run.folder / "last.ckpt").exists():
        load_state(run.folder / "last.ckpt", state)
    start = state["step"]
    journal = Journal(run.folder, step=start) if fabric.is_global_zero else None
    scores: dict[str, Scores] = {}
    for watcher in run.watchers:
        watcher.begin(run.steps)
    student.train()
    method.train()

    for step, batch in enumerate(batches(start) if start < run.steps else (), start=start):
        torch.manual_seed(step_seed(run.seed, _STEP_STREAM, step, fabric.global_rank))
        with fabric.autocast():
            losses = method(student, fabric.to_device(batch), step / run.steps)
        fabric.backward(sum(run.loss_weights.get(name, 1.0) * loss for name, loss in losses.items()))
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        share_buffers(fabric, student)
        method.after_step(student)
        meter.add(losses)

        done = state["step"] = step + 1
        if is_due(done, run.log_every, run.steps):
            report_losses(run, done, meter.read(step), optimizer, journal)
        if is_due(done, run.eval_every, run.steps) and score is not None:
            meter.check(step)
            scores = score_candidates(fabric, run, state, score, journal)
            meter.since = time.perf_counter()  # the speed counts training only
        if is_due(done, run.eval_every, run.steps) and diagnosis is not None:
            report_diagnosis(fabric, run, state, diagnosis, journal)
            meter.since = time.perf_counter()
        if is_due(done, run.save_every, run.steps):
            meter.check(step)
            save(fabric, run, state)

    if start >= run.steps and score is not None:  # a finished run was resumed: only score it
        scores = {name: score(network) for name, network in candidates(state).items()}
    if journal is not None:
        journal.close()
    return scores


def is_due(done: int, every: int, steps: int) -> bool:
    """Whether an action is due that runs every ``every`` steps and always after the last one."""
    return done == steps or (every > 0 and done % every == 0)


class Meter:
    """Mean losses and speed since the last reading. Losses stay on the device until they are read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}  # a step may lack a loss
        self.steps, self.since = 0, time.perf_counter()

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of one step."""
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0) + loss.detach()
            self.counts[name] = self.counts.get(name, 0) + 1
        self.steps += 1

    def read(self, step: int) -> dict[str, float]:
        """Means by name and ``steps_per_second``. Starts over. Raises InputError if training has diverged."""
        self.check(step)
        means = {f"loss/{name}": (total / self.counts[name]).item() for name, total in self.sums.items()}
        means["steps_per_second"] = self.steps / (time.perf_counter() - self.since)
        self.__init__()  # type: ignore[misc]
        return means

    def check(self, step: int) -> None:
        """Raise InputError if training has diverged: its weights are not worth saving."""
        if not all(math.isfinite(total.item()) for total in self.sums.values()):
            raise InputError(f"the loss is not finite at step {step}: training diverged; lower train.lr")

    def state_dict(self) -> dict[str, Any]:
        """The sums that are not read yet, so that a resumed run reports the same means."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])


def report_losses(run: Run, done: int, losses: dict[str, float], optimizer: Optimizer, journal: Journal | None) -> None:
    """Pass losses to the journal and the watchers, in the main process."""
    if journal is None:
        return
    journal.write(done, {**losses, "lr": optimizer.param_groups[0]["lr"]})
    for watcher in run.watchers:
        watcher.step(done, losses)


def score_candidates(
    fabric: Fabric,
    run: Run,
    state: dict[str, Any],
    score: Callable[[nn.Module], Scores],
    journal: Journal | None,
) -> dict[str, Scores]:
    """Evaluate student and teacher. Save the weights of the model to use if it is the best so far."""
    networks = candidates(state)
    scores = {name: score(network) for name, network in networks.items()}
    chosen, network = list(networks.items())[-1]
    if scores[chosen].miou > state["best"]:
        state["best"] = scores[chosen].miou
        if fabric.is_global_zero:
            save_weights(run.folder / "best.safetensors", network, run.description, beside=run.beside)
    if journal is not None:
        for name, result in scores.items():
            values: dict[str, float | None] = {"miou": result.miou, "pixel_accuracy": result.pixel_accuracy}
            values |= {f"iou/{label}": value for label, value in result.iou.items()}
            journal.write(state["step"], {f"{name}/{key}": value for key, value in values.items()})
        for watcher in run.watchers:
            watcher.evaluated(state["step"], scores)
    return scores


def report_diagnosis(
    fabric: Fabric, run: Run, state: Mapping[str, Any], diagnosis: Diagnosis, journal: Journal | None
) -> None:
    """Diagnose the last step and write the results to the journal."""
    values = diagnose(
        fabric,
        diagnosis,
        student=unwrapped(state["student"]),
        method=state["method"],
        progress=(state["step"] - 1) / run.steps,
        loss_weights=run.loss_weights,
        seed=run.seed,
    )
    if journal is not None:
        journal.write(state["step"], values)


def candidates(state: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The networks to evaluate, not wrapped for distributed training. The last one is the model to use."""
    return state["method"].candidates(unwrapped(state["student"]))


def unwrapped(student: nn.Module) -> nn.Module:
    """The student without its wrapper for distributed training."""
    return getattr(student, "module", student)


def save(fabric: Fabric, run: Run, state: Mapping[str, Any]) -> None:
    """Write ``last.safetensors``, the model to use, and ``last.ckpt``, everything needed to resume."""
    if fabric.is_global_zero:
        network = list(candidates(state).values())[-1]
        save_weights(run.folder / "last.safetensors", network, run.description, beside=run.beside)
        save_state(run.folder / "last.ckpt", state)
    fabric.barrier()


def share_buffers(fabric: Fabric, student: nn.Module) -> None:
    """Average the student's batch-norm statistics over processes, so that all teachers are the same."""
    if fabric.world_size == 1:
        return
    buffers = [buffer for buffer in student.buffers() if buffer.is_floating_point()]
    flat: Any = fabric.all_reduce(torch.cat([buffer.flatten() for buffer in buffers]), reduce_op="mean")
    for buffer, value in zip(buffers, torch.split(flat, [buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(value.view_as(buffer))
