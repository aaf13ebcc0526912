"""`train.tracker` -> the tracker of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from u2pl.config.schema import Config
from u2pl.engine.service_tracker import ServiceTracker
from u2pl.engine.services import Mlflow, Wandb
from u2pl.engine.trackers import NoTracker, TensorBoard, Tracker

_SERVICES: dict[str, type[Wandb] | type[Mlflow]] = {"wandb": Wandb, "mlflow": Mlflow}


def require_tracker(name: str) -> None:
    """Raise InputError if a tracker cannot be used here: its extra is missing, or nobody is logged in."""
    if name in _SERVICES:
        _SERVICES[name].require()


def build_tracker(config: Config, say: Callable[[str], None]) -> Callable[[Path], Tracker]:
    """Makes the tracker for a run folder. ``say`` is called with a warning if it fails later."""
    name = config.train.tracker
    if name not in _SERVICES:
        return TensorBoard if name == "tensorboard" else NoTracker
    parameters = dict(_values(config))
    return lambda folder: ServiceTracker(_SERVICES[name](folder, parameters), folder, say)


def _values(section: BaseModel, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of the configuration, such as ``train.lr``, with its value."""
    for name, value in section:
        if isinstance(value, BaseModel):
            yield from _values(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
