"""A tracker of a service: each number once, whatever stops, kills or fails."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from u2pl.engine.journal import Journal
from u2pl.engine.service_tracker import ServiceTracker


class Memory:
    """A service that keeps its runs in memory, and fails when it is told to."""

    name = "memory"

    def __init__(self) -> None:
        self.runs: dict[str, list[tuple[int, str, float]]] = {}
        self.away = False
        self.closed: list[bool] = []

    def begin(self, known: str | None) -> str:
        if self.away:
            raise ConnectionError("server away")
        self.now = known or f"run{len(self.runs)}"
        self.runs.setdefault(self.now, [])
        return self.now

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.away:
            raise ConnectionError("server\naway")
        self.runs[self.now] += [(step, name, value) for name, value in metrics.items()]

    def close(self, *, finished: bool) -> None:
        self.closed.append(finished)


def journal(folder: Path, service: Memory, said: list[str], *, step: int = 0) -> Journal:
    return Journal(folder, step=step, tracker=lambda place: ServiceTracker(service, place, said.append))


def numbers(folder: Path) -> list[tuple[int, str, float]]:
    """What metrics.jsonl holds, one number each."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        (line["step"], name, value)
        for line in lines
        for name, value in line.items()
        if name != "step" and value is not None
    ]


def test_names_and_steps_are_those_of_the_file(tmp_path: Path) -> None:
    service, said = Memory(), []
    one = journal(tmp_path, service, said)
    one.write(1, {"loss/supervised": 2.5, "iou/car": None})
    one.write(1, {"student/miou": 4.0})
    one.close()
    assert service.runs == {"run0": [(1, "loss/supervised", 2.5), (1, "student/miou", 4.0)]}
    assert service.runs["run0"] == numbers(tmp_path)
    assert (service.closed, said) == ([True], [])


def test_a_kill_between_losses_and_scores_of_a_step_loses_neither(tmp_path: Path) -> None:
    service, said = Memory(), []
    journal(tmp_path, service, said).write(2, {"loss": 1.0})
    resumed = journal(tmp_path, service, said, step=0)
    resumed.write(2, {"loss": 1.0})
    resumed.write(2, {"miou": 5.0})
    assert service.runs == {"run0": [(2, "loss", 1.0), (2, "miou", 5.0)]}


@pytest.mark.parametrize("seed", range(30))
def test_every_number_comes_once_over_kills_and_failures(tmp_path: Path, seed: int) -> None:
    """Random runs that are killed, resumed from their last save, and lose their server for a while."""
    random = np.random.default_rng(seed)
    service, said, saved, steps = Memory(), [], 0, 12
    while saved < steps:
        service.away = bool(random.random() < 0.3)
        log = journal(tmp_path, service, said, step=saved)
        for step in range(saved + 1, steps + 1):
            service.away = service.away or bool(random.random() < 0.1)
            log.write(step, {"loss": float(step)})
            if step % 3 == 0:
                log.write(step, {"miou": float(step), "iou/none": None})
            if step % 2 == 0 and random.random() < 0.5:
                log.sync()
                saved = step
            if random.random() < 0.15:
                break
        else:
            saved = steps
            log.sync()
    service.away = False
    journal(tmp_path, service, said, step=steps).close()  # a finished run that is resumed sends what is missing
    assert sorted(service.runs[service.now]) == sorted(numbers(tmp_path))
    assert len(service.runs) == 1


def test_a_service_that_fails_is_one_line_and_no_error(tmp_path: Path) -> None:
    service, said = Memory(), []
    log = journal(tmp_path, service, said)
    log.write(1, {"loss": 1.0})
    service.away = True
    for step in (2, 3):
        log.write(step, {"loss": float(step)})
    log.close()
    assert said == [
        "warning: train.tracker=memory failed (server away); the training goes on without it, metrics.jsonl has the "
        "numbers"
    ]
    assert [step for step, _, _ in numbers(tmp_path)] == [1, 2, 3]
    service.away = False
    journal(tmp_path, service, said, step=3).close(finished=False)
    assert service.runs == {"run0": numbers(tmp_path)}
    assert service.closed == [False]


@pytest.mark.parametrize("state", ["{", "[]", '{"tracker": "other", "id": "run7"}', '{"tracker": "memory"}'])
def test_the_state_of_another_service_or_a_damaged_one_begins_a_new_run(tmp_path: Path, state: str) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 2.0}\n')
    (tmp_path / "tracker.json").write_text(state)
    service = Memory()
    journal(tmp_path, service, [], step=1).close()
    assert service.runs == {"run0": [(1, "loss", 1.0)]}
