"""The demo: the same few labels, without and with unlabeled images."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from u2pl.config import Config
from u2pl.data.classes import Palette
from u2pl.data.source import DataSource, Sample
from u2pl.engine.checkpoint import write_text_atomically
from u2pl.engine.evaluate import Scores
from u2pl.pixels import partition
from u2pl.predictor import Prediction, Predictor
from u2pl.recipes import load_config
from u2pl.report.pictures import coloured, heat, overlay, save_panels, trust
from u2pl.report.progress import ProgressBar
from u2pl.report.table import score_table
from u2pl.run import Trained, train
from u2pl.structures import PseudoLabel

METHODS = ("supervised", "u2pl")
_PICTURES = 6


def run_demo(out: Path, console: Console, *, steps: int | None = None, seed: int = 0) -> dict[str, Scores]:
    """Train both methods on `scenes`, print the table, write pictures and ``table.json``. Returns scores by method.

    Scores are those after the last step, of the network each method leaves to use: no step is picked by its score.
    """
    started = time.perf_counter()
    trained = {name: _train(name, out / name, console, steps=steps, seed=seed) for name in METHODS}
    scores = {name: list(run.scores.values())[-1] for name, run in trained.items()}
    source = trained["u2pl"].source
    title = f"{len(source.labeled)} labeled, {len(source.unlabeled)} unlabeled scenes; validation IoU %, seed {seed}"
    console.print(score_table(scores, title=title))
    path = out / "pictures" / "comparison.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_comparison(path, source, {name: Predictor.from_run(run.folder) for name, run in trained.items()})
    table = json.dumps({name: score.as_json() for name, score in scores.items()}, indent=1)
    write_text_atomically(out / "table.json", table)
    gain = scores["u2pl"].miou - scores["supervised"].miou
    minutes = (time.perf_counter() - started) / 60
    console.print(f"u2pl gains {gain:+.1f} mIoU; {minutes:.1f} min; pictures in {path.parent}", highlight=False)
    return scores


def demo_config(method: str, *, steps: int | None = None, seed: int = 0) -> Config:
    """The preset `scenes`, alike for both methods."""
    overrides = [f"method.name={method}", f"seed={seed}"]
    return load_config("scenes", overrides + ([f"train.steps={steps}"] if steps is not None else []))


def _train(method: str, folder: Path, console: Console, *, steps: int | None, seed: int) -> Trained:
    config = demo_config(method, steps=steps, seed=seed)
    resume = (folder / "config.yaml").exists()  # a demo that was stopped goes on, a finished one answers at once

    def say(line: str) -> None:
        console.print(line, highlight=False)

    with ProgressBar(console, title=method) as bar:
        return train(config, folder, resume=resume, watchers=(bar,), say=say)


def save_comparison(path: Path, source: DataSource, predictors: dict[str, Predictor]) -> None:
    """One row per validation scene: image, truth, both predictions, and where U2PL's model is sure of itself."""
    palette = predictors["u2pl"].palette
    titles = ("image", "ground truth", *predictors, "entropy", "reliable (green)")
    rows = []
    for sample in source.val[:_PICTURES]:
        predictions = {name: predictor(sample.image()) for name, predictor in predictors.items()}
        rows.append([*_given(sample, palette), *_tell(sample, predictions, palette)])
    save_panels(path, rows, titles, zoom=2)


def _given(sample: Sample, palette: Palette) -> list[Tensor]:
    return [sample.image(), coloured(sample.mask(), palette)]


def _tell(sample: Sample, predictions: dict[str, Prediction], palette: Palette) -> list[Tensor]:
    image, last = sample.image(), predictions["u2pl"]
    pseudo = PseudoLabel.from_logits(last.probability.clamp(min=1e-12).log().unsqueeze(0))
    pseudo = partition(pseudo, alpha=0.20)
    largest = torch.tensor(float(len(last.probability))).log().item()  # entropy of knowing nothing
    return [
        *(overlay(image, prediction.mask, palette) for prediction in predictions.values()),
        heat(last.entropy, largest=largest),
        trust(pseudo.reliable[0], pseudo.unreliable[0]),
    ]
