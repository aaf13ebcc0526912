"""What a training does at an evaluation: it scores student and teacher, and keeps the best of the model to use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from u2pl.engine.bootstrap import FEWEST_IMAGES, gain, verdict
from u2pl.engine.checkpoint import save_weights
from u2pl.engine.compiling import eagerly
from u2pl.engine.diagnose import Diagnosis, diagnose
from u2pl.engine.evaluate import Scores
from u2pl.engine.journal import Journal
from u2pl.engine.run import Run

#: What a state remembers of scores: whether an evaluation was left out, and the areas of the student after the warm-up.
UNSCORED = {"unscored": False, "supervised": None}


def evaluate_step(
    fabric: Fabric,
    run: Run,
    state: dict[str, Any],
    score: Callable[[nn.Module], Scores] | None,
    diagnosis: Diagnosis | None,
    journal: Journal | None,
) -> dict[str, Scores]:
    """Score the networks and diagnose the last step, as far as there are data for it."""
    state["unscored"] = False
    with eagerly(unwrapped(state["student"])):
        scores = {} if score is None else score_candidates(fabric, run, state, score, journal)
        if diagnosis is not None:
            report_diagnosis(fabric, run, state, diagnosis, journal)
    return scores


def judge(run: Run, state: Mapping[str, Any], scores: Mapping[str, Scores]) -> None:
    """Say whether unlabeled images helped, if the student was scored when labels alone had trained it."""
    after = list(scores.values())[-1].areas if scores else None
    if state["supervised"] is not None and after is not None and len(after) >= FEWEST_IMAGES:
        found = gain(state["supervised"], after, run.groups)
        run.say(verdict(found, folder=run.folder, warmup=run.warmup))


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
    if state["step"] == run.warmup:
        state["supervised"] = scores["student"].areas
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
