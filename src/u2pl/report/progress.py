"""Progress of a training run in the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console

from u2pl.engine.evaluate import Scores
from u2pl.report.printing import progress_bar, say

_SECONDS = 30.0  # between two lines in a pipe
_WORTH_A_WORD = 0.05  # share of the time


class ProgressBar:
    """A bar with losses, mIoU, speed and time left; plain lines if the output is not a terminal.

    Use it as a context manager around a training.
    """

    def __init__(self, console: Console, *, title: str) -> None:
        self.console, self.title, self.steps = console, title, 0
        self.scores, self.last_line = "", 0.0
        self.first: tuple[int, float] | None = None  # steps done at the first report, and its time
        self.counts: dict[str, tuple[Any, float]] = {}  # bars of counted images, and when they began
        self.bar = progress_bar(console, lambda task: str(task.fields["now"]))
        self.task = self.bar.add_task(title, total=None, now="", visible=False)

    def __enter__(self) -> ProgressBar:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def labeled(self, done: int, total: int) -> None:
        """Show how many images have their pseudo-masks, before the training. The first call is with 0."""
        self.counted("labelling", done, total)

    def counted(self, name: str, done: int, total: int) -> None:
        """Show how many images are done with something of this name. The first call is with 0."""
        now = time.perf_counter()
        if name not in self.counts:
            self.counts[name] = self.bar.add_task(name, total=total, now=""), now
            self.last_line = now
        task, began = self.counts[name]
        speed = f"{done / (now - began):.1f} images/s" if done and now > began else ""
        self.bar.update(task, completed=done, now=speed)
        if not self.console.is_terminal and now - self.last_line > _SECONDS:
            self.last_line = now
            say(self.console, f"{name} {done}/{total} {speed}")

    def begin(self, steps: int) -> None:
        """Show the bar of a training with this number of steps."""
        self.steps = steps
        self.bar.update(self.task, total=steps, visible=True)

    def step(self, done: int, losses: Mapping[str, float]) -> None:
        """Show losses by name and the speed, after ``done`` steps."""
        now = time.perf_counter()
        shown = [f"{name.removeprefix('loss/')} {value:.2f}" for name, value in losses.items() if "/" in name]
        text = f"{' '.join(shown)} {losses['steps_per_second']:.1f} steps/s{self.scores}{_machine(losses)}"
        self.bar.update(self.task, completed=done, now=text)
        if self.first is None:
            self.first = done, now
        if not self.console.is_terminal and now - self.last_line > _SECONDS:
            self.last_line = now
            say(self.console, f"{self.title} {done}/{self.steps} {text}, {self._left(done, now, losses)}")

    def _left(self, done: int, now: float, losses: Mapping[str, float]) -> str:
        """The time left, at the speed since the first report: what came before it is start-up."""
        first, began = self.first or (done, now)
        speed = (done - first) / (now - began) if done > first and now > began else losses["steps_per_second"]
        minutes = (self.steps - done) / speed / 60
        return f"{minutes:.0f} min left" if minutes < 90 else f"{minutes / 60:.1f} h left"

    def evaluated(self, done: int, scores: Mapping[str, Scores]) -> None:
        """Show scores by network, after ``done`` steps."""
        self.scores = "".join(f", {name} {score.miou:.1f} mIoU" for name, score in scores.items())
        say(self.console, f"{self.title} step {done}{self.scores}")


def _machine(losses: Mapping[str, float]) -> str:
    """The memory of the device, and how long the training waits for data, if that is worth a word."""
    memory = f", {losses['memory_gib']:.1f} GiB" if "memory_gib" in losses else ""
    waiting = losses.get("waiting", 0.0)
    return memory + (f", {100 * waiting:.0f} % waiting for data" if waiting >= _WORTH_A_WORD else "")
