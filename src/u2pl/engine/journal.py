"""The log of a run: metrics.jsonl, and the tracker that draws its curves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from u2pl.engine.checkpoint import unwritable, write_text_atomically
from u2pl.engine.trackers import Metrics, TensorBoard, Tracker


class Journal:
    """Appends one line of metrics per call to ``metrics.jsonl``, and passes the same numbers to a tracker.

    Lines after the last saved step come from a run that was killed later. They are dropped, so that the file holds no
    step twice.

    Args:
        folder: of the run.
        step: the last saved step.
        tracker: makes the tracker of a run folder.
    """

    def __init__(self, folder: Path, *, step: int, tracker: Callable[[Path], Tracker] = TensorBoard) -> None:
        self.path = folder / "metrics.jsonl"
        lines = self._lines()
        kept = [line for line in lines if line["step"] <= step]
        write_text_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        known = [(line.pop("step"), line) for line in lines]
        self.tracker = tracker(folder)
        self.tracker.begin([each for each in known if each[0] <= step], [each for each in known if each[0] > step])

    def write(self, step: int, metrics: Metrics) -> None:
        """Write the numbers after ``step`` steps.

        Raises InputError if the file cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
            self.tracker.write(step, metrics)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def sync(self) -> None:
        """Let the lines so far survive a power failure. Raises InputError if they cannot be written."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                os.fsync(file.fileno())
            self.tracker.flush()
        except OSError as error:
            raise unwritable(self.path, error) from error

    def close(self, *, finished: bool = True) -> None:
        """Close the tracker. A disk that is full has been told of before."""
        try:
            self.tracker.close(finished=finished)
        except OSError:
            return

    def _lines(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]  # a killed run may have left half a line
