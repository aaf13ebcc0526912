"""The settings of a training run, and who is told of its progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from u2pl.engine.evaluate import Scores
from u2pl.engine.silence import Silence
from u2pl.engine.trackers import TensorBoard, Tracker


class Watcher(Protocol):
    """Receives the progress in the main process. A progress bar is one."""

    def begin(self, steps: int) -> None: ...

    def step(self, done: int, losses: Mapping[str, float]) -> None: ...

    def evaluated(self, done: int, scores: Mapping[str, Scores]) -> None: ...


@dataclass
class Run:
    """The settings of a training run."""

    folder: Path
    steps: int
    seed: int
    loss_weights: Mapping[str, float]
    description: Mapping[str, Any]  #: saved with the weights, to rebuild the network
    beside: Mapping[str, nn.Module] = field(default_factory=dict)  #: saved with the weights by name; not trained
    eval_every: int = 0  #: 0: only after the last step
    warmup: int = 0  #: steps on labels only; the student after them is scored and compared with the model at the end
    save_every: int = 0
    log_every: int = 10
    watchers: list[Watcher] = field(default_factory=list)
    groups: Tensor | None = None  #: of the validation images, see :func:`u2pl.engine.bootstrap.gain`
    data: Mapping[str, Any] = field(default_factory=dict)  #: what the data are, saved with the state
    say: Callable[[str], None] = lambda line: None  #: called with lines of text
    tracker: Callable[[Path], Tracker] = TensorBoard  #: makes what draws the curves
    confidence: str = "method.threshold"  #: the key that sets how confident a pseudo-label must be

    def __post_init__(self) -> None:
        self.silence = Silence(self.say, self.confidence)
