"""The results of finished runs, and statistics over seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from u2pl.engine.checkpoint import write_text_atomically
from u2pl.engine.evaluate import Scores
from u2pl.errors import InputError
from u2pl.experiments.trials import Trial

SCORES = "scores.json"  #: if this file exists, the run is finished


@dataclass(frozen=True, kw_only=True)
class Record:
    """One finished run. Scores are in percent, after the last step, of the network that the method recommends."""

    name: str
    method: str
    labeled: str
    labeled_images: int
    seed: int
    miou: float
    iou: dict[str, float | None]  #: by class
    student_miou: float
    parameters: int
    training_parameters: int
    ms_per_step: float | None  #: median over the lines of metrics
    minutes: float  #: of training, without validation
    folder: str
    overrides: list[str]


def write_scores(folder: Path, scores: Mapping[str, Scores]) -> None:
    """Mark a run as finished, with the scores of its networks. The last one is the network to use."""
    saved = {name: score.as_json() for name, score in scores.items()}
    write_text_atomically(folder / SCORES, json.dumps(saved, indent=1) + "\n")


def is_finished(folder: Path) -> bool:
    """Whether the run in this folder is trained to its end and scored."""
    return (folder / SCORES).exists() and (folder / "config.yaml").exists()


def read_record(trial: Trial) -> Record:
    """The result of a finished trial. Raises InputError for files in its folder that cannot be read."""
    path = trial.folder / SCORES
    try:
        scores: dict[str, Any] = json.loads(path.read_text())
        chosen, student = list(scores.values())[-1], scores["student"]
        miou, iou, student_miou = chosen["miou"], chosen["iou"], student["miou"]
        path = trial.folder / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read; remove {trial.folder} to train this run again") from error
    ms_per_step, minutes = pace(lines)
    return Record(
        name=trial.name,
        method=trial.config.method.name,
        labeled=trial.labeled,
        labeled_images=trial.images + trial.target_images,
        seed=trial.seed,
        miou=miou,
        iou=iou,
        student_miou=student_miou,
        parameters=trial.parameters,
        training_parameters=trial.training_parameters,
        ms_per_step=ms_per_step,
        minutes=minutes,
        folder=str(trial.folder),
        overrides=list(trial.overrides),
    )


def pace(lines: Iterable[Mapping[str, Any]]) -> tuple[float | None, float]:
    """Median milliseconds per step, and minutes of all steps, from the lines of ``metrics.jsonl``.

    The speed in a line holds for the steps since the line before, so breaks of a stopped run do not count.
    """
    steps, speeds = [0], []
    for line in lines:
        if "steps_per_second" in line:
            steps.append(line["step"])
            speeds.append(line["steps_per_second"])
    if not speeds:
        return None, 0.0
    seconds = sum((now - before) / speed for before, now, speed in zip(steps, steps[1:], speeds, strict=False))
    return 1000 / statistics.median(speeds), seconds / 60


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write ``results.json``: a list with one object per run."""
    write_text_atomically(path, json.dumps([asdict(record) for record in records], indent=1) + "\n")


@dataclass(frozen=True)
class Summary:
    """Runs that only differ in the seed."""

    values: tuple[float, ...]  #: one per finished run, at least one
    wanted: int  #: number of runs, finished or not

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Standard deviation of the sample (n - 1); None for a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        spread = "" if self.std is None else f" ± {self.std:.2f}"
        partial = "" if len(self.values) == self.wanted else f" ({len(self.values)} of {self.wanted})"
        return f"{self.mean:.2f}{spread}{partial}"


def summary(trials: Iterable[Trial], records: Mapping[Path, Record]) -> Summary | None:
    """mIoU of the finished trials; None without one. ``records`` are by folder."""
    trials = list(trials)
    values = tuple(records[trial.folder].miou for trial in trials if trial.folder in records)
    return Summary(values, len(trials)) if values else None
