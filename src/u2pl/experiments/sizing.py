"""How many steps fit into a time: measured with a few steps of each kind of run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from u2pl.commands.train import train
from u2pl.engine.evaluate import Scores
from u2pl.experiments.trials import Planner

_STEPS, _LOGGED = 12, 4  # of a measurement; the first report has the start-up in it
_FEWEST = 60  # steps of a run: fewer show nothing
_MEASURED = 0.2  # share of the steps that a run may train in addition, to measure its pseudo-labels


@dataclass
class _Speed:
    """Keeps the last speed that a training reports."""

    steps_per_second: float = 1.0

    def begin(self, steps: int) -> None: ...

    def step(self, done: int, losses: Mapping[str, float]) -> None:
        self.steps_per_second = losses["steps_per_second"]

    def evaluated(self, done: int, scores: Mapping[str, Scores]) -> None: ...


@dataclass(frozen=True)
class Pace:
    """What a run costs: for each step, and besides its steps, in seconds."""

    step: float
    beside: float


def pace_of(source: str | Path, overrides: Sequence[str]) -> Pace:
    """Train a few steps into a folder that is removed afterwards, and validate once."""
    with tempfile.TemporaryDirectory() as folder:
        short = (
            f"train.steps={_STEPS}",
            f"train.log_every={_LOGGED}",
            "method.schedule.warmup=0",
            "train.eval_every=0",
        )
        planner = Planner(source, [*overrides, *short, *BELIEVE], Path(folder))
        trial = planner.trial(("pace",), (), seed=planner.shared.seed)
        speed, began = _Speed(), time.perf_counter()
        train(trial.asked, trial.folder, watchers=(speed,), say=_quiet, reports=False)
        whole = time.perf_counter() - began
    step = 1 / max(speed.steps_per_second, 1e-6)
    return Pace(step, max(0.0, whole - _STEPS * step))


#: No measurement of pseudo-labels in a measurement of the speed.
BELIEVE = ("method.reliability.min_confidence=0", "method.weighting.name=lambda_u")


def steps_within(
    seconds: float, plain: Pace, method: Pace, *, folds: int, most: int, say: Callable[[str], None]
) -> int:
    """Steps of each run, so that all runs of an assessment take about so many seconds.

    A fold has two runs on labels only, and one of the method.

    Args:
        most: steps that a training of this configuration would have.
    """
    each = folds * (2 * plain.step + method.step + _MEASURED * plain.step)
    left = seconds - folds * (2 * plain.beside + method.beside)
    fitting = int(left / each) // 10 * 10
    steps = min(most, max(_FEWEST, fitting))
    minutes = (steps * each + seconds - left) / 60
    note = f"; {_FEWEST} steps are the least, so it takes longer than asked" if steps > fitting else ""
    say(f"{steps} steps for each of {3 * folds} runs: about {minutes:.0f} minutes{note}")
    return steps


def _quiet(line: str) -> None:
    """A measurement says nothing."""
