"""metrics.jsonl and the curves beside it."""

from __future__ import annotations

import errno
import json
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from u2pl.engine.journal import Journal
from u2pl.errors import InputError


def lines(folder: Path) -> list[dict[str, float | None]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_line_and_a_curve_for_each_metric(tmp_path: Path) -> None:
    journal = Journal(tmp_path, step=0)
    journal.write(1, {"loss/supervised": 2.5, "iou/car": None})
    journal.write(2, {"loss/supervised": 1.5})
    journal.close()
    assert lines(tmp_path) == [
        {"step": 1, "loss/supervised": 2.5, "iou/car": None},
        {"step": 2, "loss/supervised": 1.5},
    ]
    curves = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in curves.Scalars("loss/supervised")] == [(1, 2.5), (2, 1.5)]
    assert curves.Tags()["scalars"] == ["loss/supervised"]


def test_a_resumed_run_drops_what_came_after_its_last_save(tmp_path: Path) -> None:
    journal = Journal(tmp_path, step=0)
    for step in (1, 2, 3):
        journal.write(step, {"loss": float(step)})
    journal.close()
    time.sleep(1.1)  # TensorBoard orders the files of a run by the second of their names
    journal = Journal(tmp_path, step=2)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    journal.write(3, {"loss": 30.0})
    journal.close()
    assert [line["loss"] for line in lines(tmp_path)] == [1.0, 2.0, 30.0]
    curves = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in curves.Scalars("loss")] == [1.0, 2.0, 30.0]


def test_half_a_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    Journal(tmp_path, step=5).close()
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}]


def test_a_new_run_starts_with_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    Journal(tmp_path, step=0).close()
    assert lines(tmp_path) == []


def curve_steps(folder: Path) -> list[int]:
    """Every step in every file of curves, as it is stored."""
    events = (event for path in folder.glob("events*") for event in LegacyEventFileLoader(str(path)).Load())
    return [event.step for event in events if event.summary.value]


@pytest.mark.parametrize("saved", [0, 1, 2])
def test_no_file_holds_a_step_twice_wherever_the_kill_came(tmp_path: Path, saved: int) -> None:
    """A journal that is not closed stands for a killed process."""
    journal = Journal(tmp_path, step=0)
    for step in (1, 2, 3):
        journal.write(step, {"loss": float(step)})
    journal.sync()
    resumed = Journal(tmp_path, step=saved)
    for step in range(saved + 1, 5):
        resumed.write(step, {"loss": float(step)})
    resumed.sync()
    resumed.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]
    assert curve_steps(tmp_path) == [1, 2, 3, 4]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, step=0)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal.tracker.writer, "add_scalar", full)
    with pytest.raises(InputError, match=r"metrics\.jsonl cannot be written \(No space left on device\)"):
        journal.write(1, {"loss": 1.0})
