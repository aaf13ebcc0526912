"""Statistics against hand computation, and files that cannot be read."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from u2pl.errors import InputError
from u2pl.experiments.records import Summary, pace, read_record
from u2pl.experiments.trials import Planner


def test_pace_of_steps_and_breaks() -> None:
    """Six steps in 3 s, two in 4 s, then the run was stopped and two more took 1 s."""
    lines: list[dict[str, Any]] = [
        {"step": 6, "steps_per_second": 2.0, "lr": 0.1},
        {"step": 8, "steps_per_second": 0.5},
        {"step": 8, "student/miou": 5.0},
        {"step": 10, "steps_per_second": 2.0},
    ]
    ms, minutes = pace(lines)
    assert ms == 500
    assert minutes == pytest.approx(8 / 60)
    assert pace([{"step": 8, "student/miou": 5.0}]) == (None, 0.0)


def test_the_median_is_of_the_middle_two_where_lines_are_even() -> None:
    lines = [{"step": step + 1, "steps_per_second": speed} for step, speed in enumerate((1.0, 100.0, 4.0, 6.0))]
    assert pace(lines)[0] == 200  # 5 steps per second


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_mean_and_deviation(count: int) -> None:
    draw = random.Random(count)
    values = tuple(draw.uniform(0, 100) for _ in range(count))
    summary = Summary(values, wanted=count)
    mean = sum(values) / count
    assert summary.mean == pytest.approx(mean)
    if count == 1:
        assert summary.std is None
        assert str(summary) == f"{mean:.2f}"
    else:
        std = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
        assert summary.std == pytest.approx(std)
        assert str(summary) == f"{mean:.2f} ± {std:.2f}"


def test_runs_that_are_not_there_yet_are_told() -> None:
    assert str(Summary((50.0, 52.0), wanted=3)) == "51.00 ± 1.41 (2 of 3)"
    assert str(Summary((50.0,), wanted=3)) == "50.00 (1 of 3)"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"student": 3}', '{"student": {"miou": 1}}', '{"miou": 3'])
def test_damaged_scores(tmp_path: Path, tiny_overrides: tuple[str, ...], text: str) -> None:
    trial = Planner("scenes", tiny_overrides, tmp_path).trial(("a", "0"), (), seed=0)
    trial.folder.mkdir()
    (trial.folder / "scores.json").write_text(text)
    with pytest.raises(InputError, match=r"a-0/scores\.json cannot be read; remove .*a-0 to train this run again"):
        read_record(trial)
