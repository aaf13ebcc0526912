"""Where the curves of a run are drawn: the port, TensorBoard, and nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch.utils.tensorboard import SummaryWriter

from u2pl.printable import printable

Metrics = Mapping[str, float | None]
Line = tuple[int, Metrics]  #: the numbers after so many steps
_CURVES = "events.out.tfevents.*"


class Tracker(Protocol):
    """Receives the numbers of ``metrics.jsonl`` in the main process, under the same names and steps."""

    def begin(self, kept: Sequence[Line], dropped: Sequence[Line]) -> None:
        """Begin, or go on with a run: ``kept`` are its lines so far, ``dropped`` those after its last save."""

    def write(self, step: int, metrics: Metrics) -> None:
        """Take the numbers after ``step`` steps. None: there is no such number."""

    def flush(self) -> None:
        """Let the numbers so far survive a kill, as far as that is possible."""

    def close(self, *, finished: bool) -> None:
        """End; ``finished``: after the last step, not after a stop or an error."""


class TensorBoard:
    """Draws the curves into the run folder. Those of before are drawn anew, so that no step comes twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, kept: Sequence[Line], dropped: Sequence[Line]) -> None:
        for curves in self.folder.glob(_CURVES):
            curves.unlink()
        self.writer = SummaryWriter(str(self.folder))
        for step, metrics in kept:
            self.write(step, metrics)

    def write(self, step: int, metrics: Metrics) -> None:
        """TensorBoard groups names by the part before the slash. Raises OSError if the disk is full."""
        for name, value in metrics.items():
            if value is not None:
                self.writer.add_scalar(printable(name), value, step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self, *, finished: bool) -> None:
        self.writer.close()


class NoTracker:
    """Draws nothing; ``metrics.jsonl`` has the numbers."""

    def __init__(self, folder: Path) -> None:
        pass

    def begin(self, kept: Sequence[Line], dropped: Sequence[Line]) -> None:
        pass

    def write(self, step: int, metrics: Metrics) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self, *, finished: bool) -> None:
        pass
