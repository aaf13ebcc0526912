"""The training loop. It sums the named losses of a method and does not depend on the method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from u2pl.data.batches import step_seed
from u2pl.engine.checkpoint import save_weights
from u2pl.engine.compiling import eagerly
from u2pl.engine.diagnose import Diagnosis
from u2pl.engine.evaluate import Scores
from u2pl.engine.journal import Journal
from u2pl.engine.machine import mean_over_processes
from u2pl.engine.meter import Meter, diverged
from u2pl.engine.resume import load_state, save_state
from u2pl.engine.run import Run
from u2pl.engine.scoring import UNSCORED, candidates, evaluate_step, judge, unwrapped
from u2pl.engine.stopping import Deferred, Stopped
from u2pl.methods.base import Method
from u2pl.structures import Batch, Crops

_STEP_STREAM = 3  # keeps the random numbers of a step apart from those of its batch


def fit(
    fabric: Fabric,
    run: Run,
    *,
    student: nn.Module,
    method: Method,
    optimizer: Optimizer,
    scheduler: LambdaLR,
    batches: Callable[[int], Iterable[Crops]],
    views: Callable[[Crops], Batch],
    score: Callable[[nn.Module], Scores] | None,
    diagnosis: Diagnosis | None = None,
    resume: bool = False,
) -> dict[str, Scores]:
    """Train to the last step and return the scores of each candidate network at the end.

    Args:
        student, optimizer: as returned by ``fabric.setup``; ``method`` is on the device already.
        batches: the batches from a step on. Each depends only on its step, so they have no state to resume.
        views: makes the batch of a step from its crops, on the device.
        score: evaluates a network on the validation set; None without one.
        diagnosis: data of the diagnosis at every evaluation; None: no diagnosis.
        resume: continue from the last checkpoint in the run's folder, if there is one.

    Raises InputError if training diverges, and :class:`~u2pl.engine.stopping.Stopped` after a signal, when the step is
    finished and saved.
    """
    meter = Meter(mean_over_processes if fabric.world_size > 1 else None)
    state: dict[str, Any] = {"student": student, "method": method, "optimizer": optimizer, "scheduler": scheduler}
    state |= {"meter": meter, "precision": fabric._precision, "data": dict(run.data)}
    state |= {"step": 0, "best": -1.0, **UNSCORED}
    note = load_state(run.folder, state) if resume else None
    if note is not None and fabric.is_global_zero:
        run.say(note)
    start, saved = state["step"], state["step"] or None
    journal = Journal(run.folder, step=start, tracker=run.tracker) if fabric.is_global_zero else None
    scores: dict[str, Scores] = {}
    for watcher in run.watchers:
        watcher.begin(run.steps)
    for module in (student, method):
        module.train()

    with Deferred() as signals, closing_of(journal):
        if state["unscored"]:
            scores = evaluate_step(fabric, run, state, score, diagnosis, journal)
        for step, crops in enumerate(meter.timed(batches(start) if start < run.steps else ()), start=start):
            torch.manual_seed(step_seed(run.seed, _STEP_STREAM, step, fabric.global_rank))
            batch = views(fabric.to_device(crops))
            with fabric.autocast():
                losses = method(student, batch, step / run.steps)
            fabric.backward(sum(run.loss_weights.get(name, 1.0) * loss for name, loss in losses.items()))
            meter.add(losses, step=step, weights=run.loss_weights, gradient=gradient_norm(fabric, student))
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            share_buffers(fabric, student)
            method.after_step(student)

            done = state["step"] = step + 1
            logs, saves = (is_due(done, every, run.steps) for every in (run.log_every, run.save_every))
            evaluates = is_due(done, run.eval_every, run.steps) or done == run.warmup
            stop = signals.agreed(fabric, now=logs)
            if logs or evaluates or saves or stop:
                meter.share()
                diverged(meter, tensors_of(state), step=done, saved=saved, folder=run.folder)
            if logs:
                report_losses(fabric, run, done, meter.read(), optimizer, journal)
            state["unscored"] = evaluates and bool(stop)  # a resumed run makes up for it
            if evaluates and not stop:
                began = time.perf_counter()
                scores = evaluate_step(fabric, run, state, score, diagnosis, journal)
                meter.since += time.perf_counter() - began  # the speed counts training only
            if saves or stop:
                save(fabric, run, state, journal)
                saved = done
            if stop:
                raise Stopped(stop, done)

    if start >= run.steps and score is not None:  # a finished run was resumed: only score it
        with eagerly(unwrapped(student)):
            scores = {name: score(network) for name, network in candidates(state).items()}
    judge(run, state, scores)
    return scores


def gradient_norm(fabric: Fabric, student: nn.Module) -> Tensor | None:
    """The norm of the gradient; None with a loss scaler, which skips steps whose gradient is not finite."""
    if getattr(fabric._precision, "scaler", None) is not None:
        return None
    return torch.nn.utils.get_total_norm([one.grad for one in student.parameters() if one.grad is not None])


def tensors_of(state: Mapping[str, Any]) -> Iterator[Tensor]:
    """The weights and statistics of all networks."""
    for network in candidates(state).values():
        yield from network.parameters()
        yield from network.buffers()


@contextmanager
def closing_of(journal: Journal | None) -> Iterator[None]:
    """Close the journal at the end, whatever happens."""
    finished = False
    try:
        yield
        finished = True
    finally:
        if journal is not None:
            journal.close(finished=finished)


def is_due(done: int, every: int, steps: int) -> bool:
    """Whether an action is due that runs every ``every`` steps and always after the last one."""
    return done == steps or (every > 0 and done % every == 0)


def report_losses(
    fabric: Fabric, run: Run, done: int, losses: dict[str, float], optimizer: Optimizer, journal: Journal | None
) -> None:
    """Pass losses to the journal and the watchers, in the main process. Watchers also get what the machine does."""
    if journal is None:
        return
    machine = {"waiting": losses.pop("waiting")}
    if fabric.device.type == "cuda":
        machine["memory_gib"] = torch.cuda.max_memory_allocated(fabric.device) / 2**30
    run.silence.read(done, losses)
    journal.write(done, {**losses, "lr": optimizer.param_groups[0]["lr"]})
    for watcher in run.watchers:
        watcher.step(done, losses | machine)


def save(fabric: Fabric, run: Run, state: Mapping[str, Any], journal: Journal | None) -> None:
    """Write ``last.safetensors``, the model to use, and ``last.ckpt``, everything needed to resume."""
    if journal is not None:
        journal.sync()  # the checkpoint must not be ahead of it
        network = list(candidates(state).values())[-1]
        save_weights(run.folder / "last.safetensors", network, run.description, beside=run.beside)
        save_state(run.folder, state)
    fabric.barrier()


def share_buffers(fabric: Fabric, student: nn.Module) -> None:
    """Average the student's batch-norm statistics over processes, so that all teachers are the same.

    Layers in evaluation mode are frozen. They keep theirs, which an average could round.
    """
    if fabric.world_size == 1:
        return
    training = [layer for layer in student.modules() if layer.training]
    buffers = [each for layer in training for each in layer.buffers(recurse=False) if each.is_floating_point()]
    flat: Any = fabric.all_reduce(torch.cat([buffer.flatten() for buffer in buffers]), reduce_op="mean")
    for buffer, value in zip(buffers, torch.split(flat, [buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(value.view_as(buffer))
