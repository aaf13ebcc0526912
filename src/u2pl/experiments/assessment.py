"""The command `u2pl assess`: whether unlabeled images help here, by cross-validation over the labeled images."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from u2pl.build import build_source
from u2pl.commands.report import report_comparison
from u2pl.commands.run_folder import AREAS
from u2pl.config.overrides import load_config
from u2pl.config.schema import Config
from u2pl.data.alike import alike
from u2pl.data.readers.folder import NONE
from u2pl.data.source import DataSource
from u2pl.data.validation import read_groups
from u2pl.engine.bootstrap import FEWEST_IMAGES, Gain, gain, too_few, whole_miou
from u2pl.engine.checkpoint import write_atomically, write_text_atomically
from u2pl.engine.machine import is_main_process
from u2pl.errors import InputError
from u2pl.experiments.assessment_plot import plot_assessment
from u2pl.experiments.folds import Fold, classes_shown, folds_of, write_folds
from u2pl.experiments.running import run_trials
from u2pl.experiments.sizing import pace_of, steps_within
from u2pl.experiments.trials import Planner, Trial
from u2pl.paths import usable
from u2pl.report.grid import Grid
from u2pl.report.printing import say

PLAN, RESULT, PLOT = "plan.json", "assessment.json", "assessment.png"
LABELS, HALF = "labels alone", "half of the labels"


@dataclass(frozen=True)
class Assessment:
    """Scores over all folds together, in percent: each labeled image is validated on once."""

    method: str
    steps: int  #: of each run
    images: int  #: labeled images
    labeled: int  #: that a run trains on, on average
    half: float  #: mIoU of half of the labels alone
    supervised: float  #: of labels alone
    semi: float  #: of the method
    gain: Gain
    by_class: Mapping[str, tuple[float, float, Gain]]  #: IoU of labels alone and of the method, and the gain
    doubled: float  #: points that twice the labels would add, by the line through half of them and all

    def sentence(self) -> str:
        """What unlabeled images do here, in a sentence."""
        found, between = self.gain, self.gain.between(by=" and ")
        more = f"twice the labels would add {f'about {self.doubled:.1f}' if self.doubled >= 0.05 else 'little'}"
        if between is None:
            why = too_few(found, f"{found.images} labeled images")
            return f"unlabeled images: {found.points + 0.0:+.1f} mIoU; {why}, so label more groups; {more}"
        if found.helps:
            most = sorted(self.by_class, key=lambda name: -self.by_class[name][2].points)[:2]
            names = " and ".join(name for name in most if self.by_class[name][2].points > 0)
            return f"unlabeled images add {found.points:.1f} mIoU, between {between}, mostly on {names}; {more}"
        if found.harms:
            return f"unlabeled images cost {-found.points:.1f} mIoU, between {between}: train supervised; {more}"
        return f"unlabeled images make no clear difference: {found.points + 0.0:+.1f} mIoU, between {between}; {more}"


def assess(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    out: Path,
    folds: int = 3,
    minutes: float = 15,
    console: Console,
) -> Assessment:
    """Train labels alone, half of them, and the method on each fold, and compare them on the images held out.

    ``out`` gets the folds, a folder for each run, `assessment.json`, `assessment.png` and `report.html`. Called again
    with the same arguments, it goes on where it stopped. Raises InputError before any training if a run could not
    begin.

    Args:
        source, overrides: the configuration, as for ``u2pl train``.
        folds: parts of the labeled images, each of which is held out once.
        minutes: for all runs together; ``train.steps`` decides instead if it is set.
    """
    if not (math.isfinite(minutes) and minutes > 0):
        raise InputError(f"--minutes {minutes:g}: give a number above 0")
    config = load_config(source, overrides)
    data = labeled_data(config)
    if config.train.devices * config.train.nodes > 1:  # each process would measure another speed
        raise InputError("train.devices: u2pl assess trains with one process; set train.devices=1 and train.nodes=1")
    names = sorted(sample.name for sample in data.labeled)
    chosen = {"folds": folds, "seed": config.seed, "images": names}
    plan = read_plan(out / PLAN, chosen)
    told = None if config.data.groups is None else read_groups(usable(config.data.groups), names)
    parts = folds_of(classes_shown(data.labeled, len(data.classes)), folds, seed=config.seed, groups=told)
    if len(names) < FEWEST_IMAGES:
        raise InputError(f"data: {len(names)} labeled images say nothing about others; label at least {FEWEST_IMAGES}")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")
    with leaving_nothing(out):
        files = write_folds(parts, out)
        steps = steps_of(
            source, overrides, files[0], plan, folds=folds, seconds=60 * minutes, say=partial(say, console)
        )
        with_steps = [*overrides, f"train.steps={steps}", "train.eval_every=0"]
        trials = [
            trial
            for number, paths in enumerate(files, start=1)
            for trial in planned(Planner(source, with_steps, out / "runs"), number, paths)
        ]
    write_text_atomically(out / PLAN, json.dumps({**chosen, "steps": steps}, indent=1) + "\n")
    _, failures = run_trials(trials, console=console, report=lambda records: None)
    if failures:
        raise InputError(f"{len(failures)} of {len(trials)} runs failed: {'; '.join(failures)}")
    labeled = round(sum(len(part.labeled) for part in parts) / folds)
    groups = groups_of(parts, told) if config.data.name == "folder" else None
    method = config.method.name
    result = judged(trials, method=method, classes=data.classes, steps=steps, labeled=labeled, groups=groups)
    write_text_atomically(out / RESULT, json.dumps({**asdict(result), "sentence": result.sentence()}, indent=1) + "\n")
    write_atomically(out / PLOT, lambda path: plot_assessment(path, result))
    if is_main_process():
        folders = [trial.folder for trial in trials]
        report_comparison(out, folders, assessment_grid(result), partial(say, console), what="Assessment")
    return result


def assessment_grid(result: Assessment) -> Grid:
    """The scores over all folds, for the report."""
    rows = [(HALF, f"{result.half:.1f}"), (LABELS, f"{result.supervised:.1f}"), (result.method, f"{result.semi:.1f}")]
    return Grid(("trained on, over all folds", "mIoU %"), tuple(rows), result.sentence())


def labeled_data(config: Config) -> DataSource:
    """The data set with all labels. Raises InputError for data or a method that cannot be assessed."""
    if config.data.name in ("scenes", "domain"):
        raise InputError(f"data.name: {config.data.name} has no labels to divide; assess a data set of files")
    if not config.method.kind.semi_supervised or config.method.kind.uses_tags:
        raise InputError(f"method.name: {config.method.name} uses no unlabeled images that could help; choose u2pl")
    val = {"data.val": NONE} if config.data.name == "folder" else {}
    return build_source(config.with_values(val).data, seed=config.seed)


def read_plan(path: Path, chosen: Mapping[str, object]) -> dict[str, int]:
    """What an assessment in this folder began with; empty without one. Raises InputError if it is another one."""
    if not path.exists():
        return {}
    try:
        plan = json.loads(path.read_text())
        differing = [key for key, value in chosen.items() if plan[key] != value]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read; choose another --out") from error
    if differing:
        raise InputError(f"--out {path.parent}: holds an assessment with other {differing[0]}; choose another --out")
    return {"steps": int(plan["steps"])}


@contextmanager
def leaving_nothing(out: Path) -> Iterator[None]:
    """Remove the folder if it is new and what happens inside is an InputError: nothing was trained then."""
    new = not out.exists()
    try:
        yield
    except InputError:
        if new:
            shutil.rmtree(out, ignore_errors=True)
        raise


def steps_of(
    source: str | Path,
    overrides: Sequence[str],
    paths: Mapping[str, Path],
    plan: Mapping[str, int],
    *,
    folds: int,
    seconds: float,
    say: Callable[[str], None],
) -> int:
    """Steps of each run: those of the plan, ``train.steps`` if it is set, or as many as fit into the time.

    Raises InputError if the first two differ.
    """
    split = [f"data.{key}={json.dumps(str(paths[key]))}" for key in ("labeled", "val")]
    with_data = [*overrides, *split]
    planner = Planner(source, with_data, paths["val"].parent / "unused")
    most = planner.trial((planner.shared.method.name,), (), seed=planner.shared.seed).config.train.steps
    is_set = any(each.startswith("train.steps=") for each in overrides)
    if plan and is_set and plan["steps"] != most:
        raise InputError(f"train.steps: is {most} now but {plan['steps']} in this assessment; choose another --out")
    if plan or is_set:
        return plan.get("steps", most)
    say("measuring how long a step takes")
    plain, method = pace_of(source, [*with_data, "method.name=supervised"]), pace_of(source, with_data)
    return steps_within(seconds, plain, method, folds=folds, most=most, say=say)


def planned(planner: Planner, number: int, paths: Mapping[str, Path]) -> list[Trial]:
    """The three runs of a fold."""
    val = f"data.val={json.dumps(str(paths['val']))}"
    method = planner.shared.method.name
    lines = {LABELS: ("supervised", "labeled"), method: (method, "labeled"), HALF: ("supervised", "half")}
    return [
        planner.trial(
            (name, f"fold {number}"),
            (f"method.name={each}", f"data.labeled={json.dumps(str(paths[split]))}", val),
            seed=planner.shared.seed,
        )
        for name, (each, split) in lines.items()
    ]


def groups_of(folds: Sequence[Fold], told: Mapping[str, str] | None) -> Tensor:
    """(N,) int64, the numbers of the groups of the images of all folds, as :func:`areas_of` has them."""
    return torch.tensor(alike([name for fold in folds for name in fold.val], told))


def judged(
    trials: Sequence[Trial],
    *,
    method: str,
    classes: Sequence[str],
    steps: int,
    labeled: int,
    groups: Tensor | None = None,
) -> Assessment:
    """Compare the runs over the images of all folds together. Images of one of the ``groups`` are drawn together."""
    half, plain, semi = (areas_of([one for one in trials if one.name == name]) for name in (HALF, LABELS, method))
    scores = [whole_miou(each) for each in (half, plain, semi)]
    by_class = {}
    for index, name in enumerate(classes):
        one, other = plain[:, :, index : index + 1], semi[:, :, index : index + 1]
        if (one[:, 1] + other[:, 1]).sum() > 0:
            by_class[name] = (whole_miou(one), whole_miou(other), gain(one, other, groups))
    return Assessment(
        method=method,
        steps=steps,
        images=len(plain),
        labeled=labeled,
        half=scores[0],
        supervised=scores[1],
        semi=scores[2],
        gain=gain(plain, semi, groups),
        by_class=by_class,
        doubled=scores[1] - scores[0],
    )


def areas_of(trials: Sequence[Trial]) -> Tensor:
    """(N, 2, C) int64 of the images of all folds, by the network that each run leaves to use.

    Raises InputError for a run whose file cannot be read.
    """
    found = []
    for trial in trials:
        path = trial.folder / AREAS
        try:
            found.append(load_file(path)["areas"])
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read; remove {trial.folder} to train this run again") from error
    return torch.cat(found)
