"""The log of a run: metrics.jsonl and TensorBoard curves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from u2pl.engine.checkpoint import unwritable, write_text_atomically
from u2pl.printable import printable

_CURVES = "events.out.tfevents.*"


class Journal:
    """Appends one line of metrics per call to ``metrics.jsonl``, and the same numbers to TensorBoard.

    Lines after the last saved step come from a run that was killed later. They are dropped, and the curves are drawn
    anew from the lines that stay: neither holds a step twice.

    Args:
        folder: of the run.
        step: the last saved step.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [line for line in self._lines() if line["step"] <= step]
        write_text_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        for curves in folder.glob(_CURVES):
            curves.unlink()
        self.writer = SummaryWriter(str(folder))
        for line in kept:
            self._draw(line.pop("step"), line)

    def write(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Write the numbers after ``step`` steps. TensorBoard groups names by the part before the slash.

        Raises InputError if the file cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
            self._draw(step, metrics)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def sync(self) -> None:
        """Let the lines so far survive a power failure. Raises InputError if they cannot be written."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                os.fsync(file.fileno())
            self.writer.flush()
        except OSError as error:
            raise unwritable(self.path, error) from error

    def close(self) -> None:
        """Flush the curves. A disk that is full has been told of before."""
        try:
            self.writer.close()
        except OSError:
            return

    def _draw(self, step: int, metrics: Mapping[str, float | None]) -> None:
        for name, value in metrics.items():
            if value is not None:
                self.writer.add_scalar(printable(name), value, step)

    def _lines(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]  # a killed run may have left half a line
