"""A tracker that sends the numbers to a service: each once, over stops and kills, and never at the training's cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from u2pl.engine.checkpoint import write_text_atomically
from u2pl.engine.trackers import Line, Metrics
from u2pl.errors import InputError

STATE = "tracker.json"  #: in the run folder: which run of the service goes on, and what it has


class Service(Protocol):
    """A program or server that keeps the curves of many runs. Any method may raise any exception."""

    name: str  #: as `train.tracker`

    def begin(self, known: str | None) -> str:
        """Begin a run, or go on with the ``known`` one. Returns what it is known by."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self, *, finished: bool) -> None: ...


@dataclass
class Mark:
    """The last numbers that a service has."""

    step: int = -1
    names: Sequence[str] = ()  #: of this step; it has all of the steps before

    def has(self, step: int, name: str) -> bool:
        return step < self.step or (step == self.step and name in self.names)

    def add(self, step: int, names: Sequence[str]) -> None:
        if step >= self.step:
            self.names = sorted({*names, *(self.names if step == self.step else ())})
            self.step = step


class ServiceTracker:
    """Sends the numbers to a service.

    A service cannot forget what it has. A resumed run repeats the steps after its last save and reaches the same
    numbers, so those are not sent again. If the service fails, one line says so and the training goes on without it; a
    resumed run sends what is missing.

    Args:
        service: receives each number once.
        folder: of the run.
        say: called with a warning.
    """

    def __init__(self, service: Service, folder: Path, say: Callable[[str], None]) -> None:
        self.service, self.path, self.say = service, folder / STATE, say
        self.had, self.sent = Mark(), Mark()  # when this process began, and now
        self.id: str | None = None
        self.failed = False

    def begin(self, kept: Sequence[Line], dropped: Sequence[Line]) -> None:
        failed = self._read()
        if self.id is not None and not failed:
            for step, metrics in (*kept, *dropped):
                self.had.add(step, list(metrics))
        self.sent = Mark(self.had.step, self.had.names)
        self._try(self._begin)
        for step, metrics in kept:
            self.write(step, metrics)

    def write(self, step: int, metrics: Metrics) -> None:
        new = {name: value for name, value in metrics.items() if value is not None and not self.had.has(step, name)}
        if new:
            self._try(lambda: self.service.write(step, new))
        if not self.failed:
            self.sent.add(step, list(metrics))

    def flush(self) -> None:
        pass  # a kill loses what is on its way

    def close(self, *, finished: bool) -> None:
        self._try(lambda: self.service.close(finished=finished))

    def _begin(self) -> None:
        self.id = self.service.begin(self.id)
        self._save()

    def _try(self, action: Callable[[], object]) -> None:
        if self.failed:
            return
        try:
            action()
        except Exception as error:  # a training of days does not end because a server does
            self.failed = True
            why = " ".join(str(error).split())[:200] or type(error).__name__
            self.say(
                f"warning: train.tracker={self.service.name} failed ({why}); the training goes on without it, "
                "metrics.jsonl has the numbers"
            )
            with suppress(InputError):
                self._save()

    def _save(self) -> None:
        state = {"tracker": self.service.name, "id": self.id, "failed": self.failed, "has": asdict(self.sent)}
        write_text_atomically(self.path, json.dumps(state) + "\n")

    def _read(self) -> bool:
        """Take up the state of a stopped run, if it used this service. Returns whether the service had failed."""
        try:
            state = json.loads(self.path.read_text(encoding="utf-8"))
            if state["tracker"] != self.service.name:
                return False
            self.had, self.id = Mark(**state["has"]), state["id"]
            return bool(state["failed"])
        except (OSError, ValueError, KeyError, TypeError):  # none, or a damaged one: a new run of the service begins
            return False
