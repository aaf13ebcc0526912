"""Progress of a training run in the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console

from u2pl.engine.evaluate import Scores
from u2pl.report.printing import progress_bar, say


class ProgressBar:
    """A bar with losses, mIoU, speed and time left; plain lines if the output is not a terminal.

    Use it as a context manager around a training.
    """

    def __init__(self, console: Console, *, title: str) -> None:
        self.console, self.title, self.steps = console, title, 0
        self.scores, self.started, self.last_line = "", time.perf_counter(), 0.0
        self.first: int | None = None
        self.bar = progress_bar(console, lambda task: str(task.fields["now"]))
        self.task = self.bar.add_task(title, total=None, now="", visible=False)

    def __enter__(self) -> ProgressBar:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def begin(self, steps: int) -> None:
        """Show the bar of a training with this number of steps."""
        self.steps = steps
        self.bar.update(self.task, total=steps, visible=True)

    def step(self, done: int, losses: Mapping[str, float]) -> None:
        """Show losses by name and the speed, after ``done`` steps."""
        shown = [f"{name.removeprefix('loss/')} {value:.2f}" for name, value in losses.items() if "/" in name]
        text = f"{' '.join(shown)} {losses['steps_per_second']:.1f} steps/s{self.scores}"
        self.bar.update(self.task, completed=done, now=text)
        self.first = done if self.first is None else self.first
        if not self.console.is_terminal and time.perf_counter() - self.last_line > 30:
            self.last_line = time.perf_counter()
            left = (self.last_line - self.started) * (self.steps - done) / max(1, done - self.first + 10)
            say(self.console, f"{self.title} {done}/{self.steps} {text}, {left / 60:.0f} min left")

    def evaluated(self, done: int, scores: Mapping[str, Scores]) -> None:
        """Show scores by network, after ``done`` steps."""
        self.scores = "".join(f", {name} {score.miou:.1f} mIoU" for name, score in scores.items())
        say(self.console, f"{self.title} step {done}{self.scores}")
