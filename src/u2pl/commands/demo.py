"""The command `u2pl demo`: what unlabeled images add to labels, in several settings, on generated scenes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from u2pl.commands.evaluate import score_run
from u2pl.commands.train import Trained, train
from u2pl.config.overrides import load_config
from u2pl.config.schema import Config
from u2pl.data.classes import Palette
from u2pl.data.source import DataSource, Sample
from u2pl.engine.checkpoint import write_text_atomically
from u2pl.engine.evaluate import Scores
from u2pl.errors import InputError, quoted
from u2pl.pixels import partition
from u2pl.predictor import Prediction, Predictor
from u2pl.report.pictures import coloured, heat, overlay, save_panels, trust
from u2pl.report.printing import say, show
from u2pl.report.progress import ProgressBar
from u2pl.report.table import score_table
from u2pl.structures import PseudoLabel

_PICTURES = 6


@dataclass(frozen=True, slots=True)
class Setting:
    """Trainings of one preset that a demo compares. Each is a column of the table and a folder."""

    preset: str
    columns: dict[str, tuple[str, ...]]  #: overrides by column: the baseline first, the method to demonstrate last
    about: str  #: title of the table; has fields for the numbers of ``labeled`` and ``unlabeled`` images
    stages: bool = False  #: also scores the maps that trained the last column, in columns before it

    @property
    def shown(self) -> str:
        """The column of the method to demonstrate."""
        return list(self.columns)[-1]


SETTINGS = {
    "semi": Setting(
        preset="scenes",
        columns={"supervised": ("method.name=supervised",), "u2pl": ("method.name=u2pl",)},
        about="{labeled} labeled, {unlabeled} unlabeled scenes; validation IoU %",
    ),
    "domain": Setting(
        preset="domain",
        columns={"source only": ("method.name=supervised",), "u2pl": ("method.name=u2pl",)},
        about="{labeled} labeled scenes by day, {unlabeled} unlabeled ones by night; IoU % by night",
    ),
    "weak": Setting(
        preset="weak",
        columns={"u2pl": ()},
        about="{unlabeled} scenes with tags, {labeled} labeled ones; validation IoU %, maps told the tags",
        stages=True,
    ),
}


def run_demo(
    out: Path | None, console: Console, *, setting: str = "semi", steps: int | None = None, seed: int = 0
) -> dict[str, Scores]:
    """Train the columns of a setting, print the table, and write pictures and ``table.json``. Returns scores by column.

    Scores are from after the last step, for the network that each method recommends. No step is picked by its score.

    Args:
        out: folder of the results; None: ``runs/demo``, or ``runs/demo-SETTING`` for a setting other than ``semi``.
    """
    started = time.perf_counter()
    chosen = setting_of(setting)
    folder = out or Path("runs") / ("demo" if setting == "semi" else f"demo-{setting}")
    trained = {
        column: _train(chosen, column, folder / column.replace(" ", "_"), console, steps=steps, seed=seed)
        for column in chosen.columns
    }
    scores = {name: list(run.scores.values())[-1] for name, run in trained.items()}
    if chosen.stages:
        scores = {**score_run(trained[chosen.shown].folder).stages, **scores}
    source = trained[chosen.shown].source
    about = chosen.about.format(labeled=len(source.labeled), unlabeled=len(source.unlabeled))
    show(console, score_table(scores, title=f"{about}, seed {seed}"))
    path = folder / "pictures" / "comparison.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_comparison(path, source, {name: Predictor.from_run(run.folder) for name, run in trained.items()})
    table = json.dumps({name: score.as_json() for name, score in scores.items()}, indent=1)
    write_text_atomically(folder / "table.json", table)
    baseline, *_, shown = scores.values()
    minutes = (time.perf_counter() - started) / 60
    gain = f"{chosen.shown} gains {shown.miou - baseline.miou:+.1f} mIoU"
    say(console, f"{gain}; {minutes:.1f} min; pictures in {path.parent}")
    return scores


def setting_of(name: str) -> Setting:
    """A setting by name. Raises InputError if there is none."""
    if name not in SETTINGS:
        raise InputError(f"--setting: there is no {quoted(name)}; give {', '.join(SETTINGS)}")
    return SETTINGS[name]


def demo_config(setting: Setting, column: str, *, steps: int | None = None, seed: int = 0) -> Config:
    """The configuration of a column."""
    if steps is not None and steps < 1:
        raise InputError(f"--steps {steps}: is no number of steps; give 1 or more")
    length = [f"train.steps={steps}"] if steps is not None else []
    return load_config(setting.preset, [*setting.columns[column], f"seed={seed}", *length])


def _train(setting: Setting, column: str, folder: Path, console: Console, *, steps: int | None, seed: int) -> Trained:
    config = demo_config(setting, column, steps=steps, seed=seed)
    resume = (folder / "config.yaml").exists()  # a stopped demo resumes, a finished one only prints its results
    with ProgressBar(console, title=column) as bar:
        return train(config, folder, resume=resume, watchers=(bar,), say=partial(say, console))


def save_comparison(path: Path, source: DataSource, predictors: dict[str, Predictor]) -> None:
    """One row per validation scene: image, ground truth, predictions, and reliability of the last model."""
    palette = list(predictors.values())[-1].palette
    titles = ("image", "ground truth", *predictors, "entropy", "reliable (green)")
    rows = []
    for sample in source.val[:_PICTURES]:
        predictions = {name: predictor(sample.image()) for name, predictor in predictors.items()}
        rows.append([*_given(sample, palette), *_tell(sample, predictions, palette)])
    save_panels(path, rows, titles, zoom=2)


def _given(sample: Sample, palette: Palette) -> list[Tensor]:
    return [sample.image(), coloured(sample.mask(), palette)]


def _tell(sample: Sample, predictions: dict[str, Prediction], palette: Palette) -> list[Tensor]:
    image, last = sample.image(), list(predictions.values())[-1]
    pseudo = PseudoLabel.from_logits(last.probability.clamp(min=1e-12).log().unsqueeze(0))
    pseudo = partition(pseudo, alpha=0.20)
    largest = torch.tensor(float(len(last.probability))).log().item()  # entropy of equal probabilities
    return [
        *(overlay(image, prediction.mask, palette) for prediction in predictions.values()),
        heat(last.entropy, largest=largest),
        trust(pseudo.reliable[0], pseudo.unreliable[0]),
    ]
