"""Whether the labels that `u2pl suggest` asks for help more than random ones.

For each seed, a start run trains on a few labels that u2pl draws. The other labeled images of the data set play
unlabeled ones. Each strategy picks some of them, and a run trains anew on both. All runs of a seed have the same steps,
so that they differ in labels only. Prints mIoU on the validation set, and how many classes a new label shows. Run it
again to go on: finished runs are skipped.

    python benchmarks/suggest.py camvid data.root=CAMVID --start 23 --add 23 --out runs/suggest-camvid
    python benchmarks/suggest.py examples/voc_animals.yaml data.root=VOC network.weights=mobilenet_v2.pt \\
        --start 44 --add 23 --out runs/suggest-voc
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console

from u2pl.build import build_source
from u2pl.commands.suggest import look
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.config.schema import Config
from u2pl.data.files import FileSample
from u2pl.data.source import Sample
from u2pl.engine.checkpoint import write_text_atomically
from u2pl.engine.machine import make_fabric
from u2pl.labelling.looking import LookingPredictor
from u2pl.labelling.looks import Looks
from u2pl.labelling.strategies import STRATEGIES, rank
from u2pl.report.grid import Grid, show_grid

_SCORE = "miou.json"


def quiet(line: str) -> None:
    """Say nothing."""


class Labels:
    """The labeled images of a data set, of which a seed takes some to start with."""

    def __init__(self, config: Config, folder: Path, *, start: int, seed: int) -> None:
        self.config, self.folder, self.seed = config.with_values({"seed": seed, "data.cache": False}), folder, seed
        drawn = build_source(self.config.with_values({"data.labeled": start}).data, seed=seed)
        self.start = list(drawn.labeled)
        self.others = [sample for sample in drawn.unlabeled if sample.has_mask]

    def miou(self, name: str, labeled: list[str]) -> float:
        """Of a run with these labels, which is trained unless it is finished."""
        split, out = self.folder / f"{name}.txt", self.folder / name
        if not (out / _SCORE).exists():
            write_text_atomically(split, "".join(f"{each}\n" for each in labeled))
            config = self.config.with_values({"data.labeled": str(split.resolve())})
            trained = train(config, out, resume=(out / "config.yaml").exists(), say=quiet)
            *_, scores = trained.scores.values()
            write_text_atomically(out / _SCORE, json.dumps({"miou": scores.miou}))
        return float(json.loads((out / _SCORE).read_text())["miou"])

    def picked(self, run: Path, strategy: str, add: int) -> list[Sample]:
        """The images that a strategy picks with the model of a run. All of them share one look."""
        device = make_fabric(accelerator="auto", devices=1, nodes=1, precision="fp32").device
        predictor: Any = LookingPredictor.from_run(run, device=device)
        samples, classes = [*self.others, *self.start], len(predictor.classes)
        files = [FileSample(each.name, _path(each), None, classes, reader=predictor.reader) for each in samples]
        looks = Looks(self.folder, {"run": str(run), "images": [each.name for each in files]}, len(files))
        look(predictor, files, looks, failed=[], say=quiet)
        labeled = range(len(self.others), len(files))
        ranking = rank(looks, add, labeled=labeled, strategy=strategy, seed=self.seed)
        return [samples[each.place] for each in ranking.suggestions]


def _path(sample: Any) -> Path:
    return sample.image_path if isinstance(sample, FileSample) else _path(sample.sample)


def measured(labels: Labels, strategies: list[str], add: int) -> dict[str, tuple[float, float]]:
    """(mIoU, classes that an added label shows on average) of the start run and of each strategy."""
    before = [sample.name for sample in labels.start]
    scores = {"start": (labels.miou("start", before), 0.0)}
    for strategy in strategies:
        more = labels.picked(labels.folder / "start", strategy, add)
        shown = statistics.mean(len(set(sample.mask().unique().tolist()) - {255}) for sample in more)
        scores[strategy] = labels.miou(strategy, before + [sample.name for sample in more]), shown
        print(f"seed {labels.seed}, {strategy}: {scores[strategy][0]:.2f} mIoU", flush=True)
    return scores


def grid(seeds: list[dict[str, tuple[float, float]]], start: int, add: int) -> Grid:
    """A row for the start and for each strategy."""
    rows = []
    for name in seeds[0]:
        mious = [scores[name][0] for scores in seeds]
        gains = [scores[name][0] - scores["random"][0] for scores in seeds] if "random" in seeds[0] else []
        rows.append(
            (
                name,
                f"{start if name == 'start' else start + add}",
                f"{statistics.mean(mious):.2f}",
                " ".join(f"{miou:.2f}" for miou in mious),
                f"{statistics.mean(gains):+.2f}" if gains else "",
                "" if name == "start" else f"{statistics.mean(scores[name][1] for scores in seeds):.2f}",
            )
        )
    header = ("labels added by", "labels", "mIoU", "of each seed", "more than random", "classes a label")
    return Grid(header, tuple(rows), f"mIoU of the validation set in percent, {len(seeds)} seeds")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--start", type=int, default=23)
    parser.add_argument("--add", type=int, default=23)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--strategies", default="random,typical,expected,diverse,entropy")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_intermixed_args(arguments)
    strategies = options.strategies.split(",")
    if unknown := set(strategies) - set(STRATEGIES):
        parser.error(f"--strategies: {', '.join(sorted(unknown))} is none of {', '.join(STRATEGIES)}")
    config, results = load_config(options.config, options.overrides), []
    for seed in map(int, options.seeds.split(",")):
        folder = options.out / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        labels = Labels(config, folder, start=options.start, seed=seed)
        if len(labels.others) < options.add:
            parser.error(f"--add {options.add}: only {len(labels.others)} labeled images are left")
        results.append(measured(labels, strategies, options.add))
        table = grid(results, options.start, options.add)
        write_text_atomically(options.out / "table.md", table.markdown())
    show_grid(Console(), table)


if __name__ == "__main__":
    main()
