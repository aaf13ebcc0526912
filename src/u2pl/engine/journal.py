"""The log of a run: metrics.jsonl and TensorBoard curves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from u2pl.engine.checkpoint import write_text_atomically
from u2pl.printable import printable


class Journal:
    """Appends one line of metrics per call to ``metrics.jsonl``, and the same numbers to TensorBoard.

    Args:
        folder: of the run.
        step: the last saved step. Lines after it come from a run that was killed later; they are dropped.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [line for line in self._lines() if json.loads(line)["step"] <= step]
        write_text_atomically(self.path, "".join(line + "\n" for line in kept))
        self.writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Write the numbers after ``step`` steps. TensorBoard groups names by the part before the slash."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            if value is not None:
                self.writer.add_scalar(printable(name), value, step)

    def close(self) -> None:
        """Flush the curves."""
        self.writer.close()

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines()
        return [line for line in lines if line.endswith("}")]  # a killed run may have left half a line
