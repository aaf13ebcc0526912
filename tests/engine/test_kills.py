"""SIGKILL at random moments: every method goes on to the same weights, and no file is torn or holds a step twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

TESTS = Path(__file__).parent
WEAK = (
    "data.kind=objects",
    "data.labeled=0",
    "data.tags=masks",
    "method.cam.warmup=0.25",
    "method.schedule.warmup=0.5",
)
METHODS = {
    "supervised": ("method.name=supervised",),
    "mean_teacher": ("method.name=mean_teacher",),
    "fixmatch": ("method.name=fixmatch",),
    "unimatch": ("method.name=unimatch",),
    "u2pl": ("method.name=u2pl",),
    "u2pl_2_passes": ("method.name=u2pl", "method.teacher.passes=2", "train.optimizer=adamw"),
    "weak_u2pl": ("method.name=weak_u2pl", *WEAK),
}
KILLS = 12


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_kills_at_random_moments(tmp_path: Path, tiny_overrides: tuple[str, ...], method: str) -> None:
    overrides = (*tiny_overrides, *METHODS[method])
    overrides += ("train.steps=60", "train.save_every=3", "train.log_every=1", "train.eval_every=7")
    done = subprocess.run(
        [sys.executable, TESTS / "killed_runs.py", tmp_path, str(KILLS), "1", *overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{KILLS} ")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for name in ("last.safetensors", "best.safetensors"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    assert steps_of(whole) == steps_of(parts)
    assert curve_of(parts, "lr") == list(range(1, 61))
    assert not list(parts.glob(".*.partial"))


def steps_of(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def curve_of(folder: Path, name: str) -> list[int]:
    """The steps of a curve, over all its files."""
    events = (event for path in folder.glob("events*") for event in LegacyEventFileLoader(str(path)).Load())
    return [event.step for event in events if any(value.tag == name for value in event.summary.value)]
