"""Weights & Biases and MLflow, through their own libraries. Both are extras, imported when they are used."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from u2pl.errors import InputError

_PARAMETERS = 100  # that MLflow takes at a time
_LONGEST = 6000  # characters of a parameter of MLflow
_PROJECT = "u2pl"  # unless the service's own variable names another


class Wandb:
    """Weights & Biases, also offline (WANDB_MODE=offline). Its files are in the run folder.

    Args:
        folder: of the run; its name is the run's.
        parameters: shown with the run.
    """

    name = "wandb"

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        self.folder, self.parameters = folder, parameters

    @staticmethod
    def require() -> None:
        """Raise InputError if it is not installed, or nobody is logged in."""
        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            from wandb import login, setup  # a folder ./wandb is no module, and yet can be imported
        except ImportError as error:
            raise InputError("train.tracker=wandb: wandb is not installed; pip install 'u2pl[wandb]'") from error
        if setup().settings.mode == "online" and not login(prompt=False, verify=False):
            raise InputError(
                "train.tracker=wandb: nobody is logged in; run `wandb login`, or set WANDB_API_KEY or "
                "WANDB_MODE=offline"
            )

    def begin(self, known: str | None) -> str:
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=os.environ.get("WANDB_NAME", self.folder.resolve().name),
            id=known,
            resume="allow",
            dir=self.folder,
            config=dict(self.parameters),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.run.define_metric("*", step_metric="step")  # a step may get numbers late, which its own count refuses
        return str(self.run.id)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log({"step": step, **metrics})

    def close(self, *, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


class Mlflow:
    """MLflow, at the server or folder that MLFLOW_TRACKING_URI names.

    Args:
        folder: of the run; its name is the run's.
        parameters: logged once, when the run begins.
    """

    name = "mlflow"

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        self.folder, self.parameters = folder, parameters

    @staticmethod
    def require() -> None:
        """Raise InputError if it is not installed, or has no place to log to."""
        try:
            from mlflow import MlflowClient  # noqa: F401
        except ImportError as error:
            raise InputError("train.tracker=mlflow: mlflow is not installed; pip install 'u2pl[mlflow]'") from error
        try:
            import sqlalchemy  # noqa: F401  # for ./mlflow.db, the default of the whole MLflow
        except ImportError as error:
            if not os.environ.get("MLFLOW_TRACKING_URI"):
                raise InputError(
                    "train.tracker=mlflow: MLFLOW_TRACKING_URI is not set; name your server, such as "
                    "http://127.0.0.1:5000, or install the whole mlflow to log into ./mlflow.db"
                ) from error

    def begin(self, known: str | None) -> str:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its own 7 take minutes, in which nothing trains
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient()
        if known is not None:
            self.client.update_run(known, status="RUNNING")
            self.id = known
            return known
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        found = self.client.get_experiment_by_name(name)
        experiment = self.client.create_experiment(name) if found is None else found.experiment_id
        self.id = self.client.create_run(experiment, run_name=self.folder.resolve().name).info.run_id
        parameters = [Param(key, str(value)[:_LONGEST]) for key, value in self.parameters.items()]
        for first in range(0, len(parameters), _PARAMETERS):
            self.client.log_batch(self.id, params=parameters[first : first + _PARAMETERS])
        return self.id

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        self.client.log_batch(
            self.id, metrics=[Metric(_allowed(name), value, now, step) for name, value in metrics.items()]
        )

    def close(self, *, finished: bool) -> None:
        self.client.set_terminated(self.id, status="FINISHED" if finished else "KILLED")


def _allowed(name: str) -> str:
    """A name as MLflow takes it: another character than a letter, a digit or ``_-. :/`` becomes its code."""
    return re.sub(r"[^\w\-. :/]", lambda found: f"_{ord(found[0]):x}_", name)
