"""MLflow and Weights & Biases, with the real libraries: a folder of files, and the offline mode."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from u2pl.engine.journal import Journal
from u2pl.engine.service_tracker import ServiceTracker
from u2pl.engine.services import Mlflow, Wandb
from u2pl.errors import InputError

PARAMETERS = {"train.lr": 0.01, "data.root": None, **{f"key{number}": number for number in range(150)}}
ODD = "student/iou/Straße (no. 1) 道"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "WANDB_NAME", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_mlflow_has_the_numbers_and_goes_on_with_its_run(folder: Path) -> None:
    from mlflow import MlflowClient

    said: list[str] = []

    def journal(step: int) -> Journal:
        return Journal(
            folder, step=step, tracker=lambda place: ServiceTracker(Mlflow(place, PARAMETERS), place, said.append)
        )

    killed = journal(0)
    for step in (1, 2, 3):
        killed.write(step, {"loss": step / 2, ODD: None if step == 1 else 7.0})
    resumed = journal(2)
    for step in (3, 4):
        resumed.write(step, {"loss": step / 2})
    resumed.close()
    assert said == []
    client = MlflowClient()
    experiment = client.get_experiment_by_name("u2pl")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params == {key: str(value) for key, value in PARAMETERS.items()}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(each.step, each.value) for each in history] == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]
    odd = client.get_metric_history(run.info.run_id, "student/iou/Straße _28_no. 1_29_ 道")
    assert [(each.step, each.value) for each in odd] == [(2, 7.0), (3, 7.0)]
    stopped = journal(4)
    stopped.close(finished=False)
    assert client.get_run(run.info.run_id).info.status == "KILLED"


def test_wandb_writes_into_the_run_folder_and_goes_on_with_its_run(folder: Path) -> None:
    said: list[str] = []
    for step in (0, 2):
        log = Journal(
            folder, step=step, tracker=lambda place: ServiceTracker(Wandb(place, PARAMETERS), place, said.append)
        )
        log.write(step + 1, {"loss": 0.5, ODD: 7.0})
        log.write(step + 2, {"loss": 0.25})
        log.close()
    assert said == []
    known = json.loads((folder / "tracker.json").read_text())["id"]
    runs = sorted((folder / "wandb").glob("offline-run-*"))
    assert {run.name.rpartition("-")[2] for run in runs} == {known}
    stored = b"".join(path.read_bytes() for run in runs for path in run.glob("*.wandb"))
    assert stored.count(ODD.encode()) >= 1
    assert b"train.lr" in stored


@pytest.mark.parametrize("service", [Mlflow, Wandb])
def test_a_missing_extra_is_one_line(
    service: type[Mlflow] | type[Wandb], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.require()
    name = service.name
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        InputError, match=rf"train\.tracker={name}: {name} is not installed; pip install 'u2pl\[{name}\]'"
    ):
        service.require()
    monkeypatch.delitem(sys.modules, name)


def test_without_a_place_to_log_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(InputError, match=r"train\.tracker=mlflow: MLFLOW_TRACKING_URI is not set"):
        Mlflow.require()
