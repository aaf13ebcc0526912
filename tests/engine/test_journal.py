"""metrics.jsonl and the curves beside it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from u2pl.engine.journal import Journal


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
