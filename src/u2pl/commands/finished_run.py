"""What a finished run folder holds, read for a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from u2pl.build.description import checked_description
from u2pl.build.trained import WEIGHTS_SUFFIX
from u2pl.commands.run_folder import AREAS, require_finished
from u2pl.config.overrides import load_saved
from u2pl.config.schema import Config
from u2pl.data.classes import Palette
from u2pl.data.readers.pascal_voc import voc_palette
from u2pl.engine.bootstrap import FEWEST_IMAGES, Gain, gain, group_count, interval, whole_miou
from u2pl.engine.checkpoint import read_description
from u2pl.engine.resume import has_state, saved_value
from u2pl.errors import InputError
from u2pl.paths import is_file, read_text
from u2pl.pixels.reliability import Reliability
from u2pl.report.differences import told_unlike, unlike
from u2pl.report.html.page import RunRow

_GIVE = "give the folder of a finished run, made by `u2pl train`"


@dataclass(frozen=True)
class FinishedRun:
    """A run folder, read."""

    folder: Path
    config: Config
    description: Mapping[str, Any]  #: of the network and its classes
    lines: Sequence[Mapping[str, Any]]  #: of ``metrics.jsonl``
    choices: Sequence[str]  #: lines of ``choices.txt``
    areas: Tensor | None  #: (N, 2, C) int64, see :class:`u2pl.engine.evaluate.Counted`
    confusion: Tensor | None  #: (C, C) int64
    data: Mapping[str, Any] | None  #: fingerprint of the data set; None: an earlier version did not save it
    name: str  #: of the folder, or its whole path if other runs have the same name
    groups: Tensor | None = None  #: (N,) int64, of the validation images; see :func:`u2pl.engine.bootstrap.gain`

    @property
    def method(self) -> str:
        return self.config.method.name

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.description["classes"])

    @property
    def palette(self) -> Palette:
        return tuple((r, g, b) for r, g, b in self.description["palette"]) or voc_palette(len(self.classes))

    @cached_property
    def after_warmup(self) -> Tensor | None:
        """Areas of the student when labels alone had trained it; None: it was not scored, or they are not kept."""
        found = saved_value(self.folder, "supervised") if has_state(self.folder) else None
        return found if isinstance(found, Tensor) else None

    def about(self) -> str:
        """What was trained on what, in a sentence."""
        data, network, root = self.config.data, self.description["network"], self.config.data.root
        name = f"{data.name} ({Path(root).name})" if root else data.name
        counts = ""
        if self.data is not None:
            labeled, unlabeled, val = (self.data[kind][0] for kind in ("labeled", "unlabeled", "val"))
            counts = f": {labeled} labeled, {unlabeled} unlabeled, {val} validation images"
        return (
            f"{self.method} on {name}{counts}, {len(self.classes)} classes; "
            f"{network['name']} {network.get('encoder', '')}".rstrip()
            + f", {self.config.train.steps} steps, seed {self.config.seed}"
        )

    def row(self, runs: Sequence[FinishedRun] = ()) -> RunRow:
        """The numbers of this run, with its gain over the supervised one among ``runs``."""
        if self.areas is None or not len(self.areas):
            miou, iou = self._last_scores()
            return RunRow(self.name, self.about(), miou=miou, iou=iou)
        enough = len(self.areas) >= FEWEST_IMAGES
        hit, union = self.areas.sum(dim=0).double()
        shares = zip(self.classes, hit.tolist(), union.tolist(), strict=True)
        return RunRow(
            self.name,
            self.about(),
            miou=whole_miou(self.areas),
            interval=interval(self.areas, self.groups) if enough else None,
            images=len(self.areas),
            groups=group_count(self.groups),
            iou={name: 100 * some / all_of if all_of else None for name, some, all_of in shares},
            gain=self.gain_over(self.baseline(runs)),
        )

    def baseline(self, runs: Sequence[FinishedRun]) -> FinishedRun | None:
        """The supervised run with the same labels, validation images and settings, and if possible the same seed.

        The settings that only this run's method uses may differ.
        """
        alike = [run for run in self.on_labels_alone(runs) if not unlike(self.config, run.config)]
        return min(alike, key=lambda run: run.config.seed != self.config.seed, default=None)

    def not_over(self, runs: Sequence[FinishedRun]) -> str | None:
        """Why the gain is not over a supervised run with the same labels and validation images; None: there is none."""
        nearest = min(self.on_labels_alone(runs), key=lambda run: len(unlike(self.config, run.config)), default=None)
        if nearest is None:
            return None
        differing = told_unlike(self.config, nearest.config)
        return f"{nearest.name} is not compared as labels alone, because other settings differ, too: {differing}"

    def on_labels_alone(self, runs: Sequence[FinishedRun]) -> list[FinishedRun]:
        """The supervised runs with the same labels and validation images; empty for a supervised run."""
        if self.method == "supervised":
            return []
        return [run for run in runs if run.method == "supervised" and self._is_alike(run)]

    def gain_over(self, other: FinishedRun | None) -> Gain | None:
        """What this run is better than the other one; None without one, or with too few images to say."""
        if other is None or self.areas is None or other.areas is None or len(self.areas) < FEWEST_IMAGES:
            return None
        return gain(other.areas, self.areas, self.groups)

    def gain_since_warmup(self) -> Gain | None:
        """What the model is better than its student when labels alone had trained it, if that is known."""
        before = self.after_warmup
        if self.areas is None or before is None or before.shape != self.areas.shape:
            return None
        return gain(before, self.areas, self.groups) if len(self.areas) >= FEWEST_IMAGES else None

    def alphas(self) -> list[tuple[float, float]]:
        """Step and alpha_t at the ends of the training on unlabeled images; empty for a method without it."""
        method, steps = self.config.method, self.config.train.steps
        if not method.kind.has_teacher or method.kind.has_threshold or not isinstance(steps, int):
            return []
        part = Reliability(alpha=method.reliability.alpha, dynamic=method.reliability.dynamic)
        warmup = max(method.schedule.warmup, method.cam.warmup if method.kind.uses_tags else 0.0)
        return [(round(share * steps), part.alpha_t(share)) for share in (warmup, 1.0)]

    def _is_alike(self, other: FinishedRun) -> bool:
        """Whether another run has the same classes, labels and validation images."""
        if self.data is None or other.data is None or self.areas is None or other.areas is None:
            return False
        drawn = self.config.data.root is None  # by the seed
        return (
            self.areas.shape == other.areas.shape
            and all(self.data[key] == other.data[key] for key in ("classes", "labeled", "val"))
            and self.config.data.name == other.config.data.name
            and (not drawn or self.config.seed == other.config.seed)
        )

    def _last_scores(self) -> tuple[float | None, dict[str, float | None]]:
        """mIoU and IoU by class of the last evaluation in ``metrics.jsonl``; the teacher's if there is one."""
        for network in ("teacher", "student"):
            for line in reversed(self.lines):
                if f"{network}/miou" in line:
                    return line[f"{network}/miou"], {name: line.get(f"{network}/iou/{name}") for name in self.classes}
        return None, {}


def read_run(folder: Path) -> FinishedRun:
    """Read a run folder. Raises InputError if it is none, is not finished, or holds a damaged file."""
    saved = folder / "config.yaml"
    if not is_file(saved):
        raise InputError(f"{folder} is no run folder: config.yaml is missing; {_GIVE}")
    config = load_saved(saved)
    require_finished(folder)
    weights = folder / f"last{WEIGHTS_SUFFIX}"
    description = checked_description(read_description(weights), weights)
    counts, data = _counts(folder / AREAS, len(description["classes"]))
    if data is None and has_state(folder):
        data = saved_value(folder, "data")
    choices = folder / "choices.txt"
    return FinishedRun(
        folder,
        config,
        description,
        _lines(folder / "metrics.jsonl"),
        read_text(choices, give=_GIVE).splitlines() if is_file(choices) else [],
        counts.get("areas"),
        counts.get("confusion"),
        data,
        folder.resolve().name,
        counts.get("groups"),
    )


def read_runs(folders: Sequence[Path]) -> list[FinishedRun]:
    """Read several run folders, each once. Raises the errors of :func:`read_run`."""
    once: dict[Path, Path] = {}
    for folder in folders:
        once.setdefault(folder.resolve(), folder)
    runs = [read_run(folder) for folder in once.values()]
    names = [run.name for run in runs]
    return [replace(run, name=str(run.folder)) if names.count(run.name) > 1 else run for run in runs]


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``."""
    text = read_text(path, give=_GIVE)
    try:
        lines = [json.loads(line) for line in text.splitlines()]
        if not all(isinstance(line["step"], int) and all(map(_is_number, line.values())) for line in lines):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: a line holds no metrics; {_GIVE}") from error
    return lines


def _is_number(value: object) -> bool:
    """Whether a value is one that a journal writes."""
    return value is None or isinstance(value, (int, float))


def _counts(path: Path, classes: int) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Tensors of ``validation.safetensors``, and the fingerprint of the data; empty for a run that has no such file."""
    if not is_file(path):
        return {}, None
    try:
        with safe_open(path, framework="pt") as file:
            counts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            data = json.loads((file.metadata() or {}).get("data", "null"))
        areas, confusion = counts["areas"], counts.get("confusion")
        if areas.dtype != torch.int64 or areas.ndim != 3 or areas.shape[1:] != (2, classes):
            raise ValueError("areas of other classes")
        if confusion is not None and confusion.shape != (classes, classes):
            raise ValueError("a confusion matrix of other classes")
        if (groups := counts.get("groups")) is not None and (
            groups.shape != areas.shape[:1] or groups.dtype != torch.int64
        ):
            raise ValueError("groups of other images")
        for kind in () if data is None else ("labeled", "unlabeled", "val"):
            _count, _digest = data[kind]
        return counts, data
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged; remove it to report without it, or {_GIVE}") from error
