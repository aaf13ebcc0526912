"""Whole runs with a tracker: MLflow's files hold what metrics.jsonl holds, over a kill and without a server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny_run import KillAt, KilledError
from u2pl.config.overrides import load_saved
from u2pl.errors import InputError

Train = Callable[..., Any]
EVERY = ("train.save_every=5", "train.log_every=3", "train.eval_every=7")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of MLflow's files."""
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return tmp_path / "mlruns"


def numbers(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each metric in metrics.jsonl."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        step = line.pop("step")
        for name, value in line.items():
            if value is not None and name != "steps_per_second":  # repeated steps take another time
                found.setdefault(name, []).append((step, value))
    return found


def test_a_killed_run_goes_on_in_the_tracker_without_a_step_twice(
    tmp_path: Path, tiny_train: Train, store: Path
) -> None:
    from mlflow import MlflowClient

    tracked, plain = tmp_path / "tracked", tmp_path / "plain"
    with pytest.raises(KilledError):
        tiny_train(tracked, *EVERY, "train.tracker=mlflow", watchers=(KillAt(12),))
    tiny_train(tracked, *EVERY, "train.tracker=mlflow", resume=True)
    tiny_train(plain, *EVERY)
    assert (tracked / "last.safetensors").read_bytes() == (plain / "last.safetensors").read_bytes()
    assert list(plain.glob("events.out.tfevents.*"))
    assert not list(tracked.glob("events.out.tfevents.*"))
    assert not (plain / "tracker.json").exists()
    client = MlflowClient()
    experiment = client.get_experiment_by_name("u2pl")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    expected = numbers(tracked)
    assert {"loss/contrastive", "teacher/miou", "lr"} <= set(expected)
    for name, values in expected.items():
        history = client.get_metric_history(run.info.run_id, name)
        assert [(each.step, each.value) for each in history] == values, name
    saved = load_saved(tracked / "config.yaml")
    assert run.data.params["train.batch_size"] == "2"
    assert run.data.params["method.contrast.bank_size"] == str(saved.method.contrast.bank_size)


def test_without_a_server_the_training_goes_on_with_one_line(
    tmp_path: Path, tiny_train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said: list[str] = []
    done = tiny_train(tmp_path / "run", "train.tracker=mlflow", "train.steps=4", "train.log_every=1", say=said.append)
    warnings = [line for line in said if "tracker" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: train.tracker=mlflow failed (")
    assert "\n" not in warnings[0]
    assert done.scores
    assert [step for step, _ in numbers(tmp_path / "run")["lr"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_extra_is_said_before_anything_is_written(
    tmp_path: Path, tiny_train: Train, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"train\.tracker={name}: {name} is not installed"):
        tiny_train(tmp_path / "run", f"train.tracker={name}")
    assert list(tmp_path.iterdir()) == []


def test_none_draws_nothing_and_a_resumed_run_may_change_its_tracker(tmp_path: Path, tiny_train: Train) -> None:
    run = tmp_path / "run"
    with pytest.raises(KilledError):
        tiny_train(run, *EVERY, "train.tracker=none", watchers=(KillAt(6),))
    assert not list(run.glob("events.out.tfevents.*"))
    tiny_train(run, *EVERY, resume=True)
    assert list(run.glob("events.out.tfevents.*"))


def test_a_run_of_an_earlier_version_resumes(tmp_path: Path, tiny_train: Train) -> None:
    run = tmp_path / "run"
    with pytest.raises(KilledError):
        tiny_train(run, *EVERY, watchers=(KillAt(6),))
    saved = (run / "config.yaml").read_text()
    assert "  tracker: tensorboard\n" in saved
    (run / "config.yaml").write_text(saved.replace("  tracker: tensorboard\n", ""))
    tiny_train(run, *EVERY, resume=True)
    assert numbers(run)["lr"][-1][0] == 16
