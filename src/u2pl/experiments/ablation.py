"""Ablations: change one setting at a time and compare with the unchanged configuration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from u2pl.engine.run import Watcher
from u2pl.errors import InputError
from u2pl.experiments.ablation_plot import plot_ablation
from u2pl.experiments.ablation_table import ablation_grid
from u2pl.experiments.records import Record
from u2pl.experiments.running import run_into
from u2pl.experiments.trials import ALIKE, Planner, Setting, Trial

REFERENCE = "reference"


def ablate(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    out: Path,
    axes: Mapping[str, Sequence[str]],
    grid: bool = False,
    seeds: Sequence[int] = (),
    keep_checkpoints: bool = False,
    dry_run: bool = False,
    console: Console,
    watchers: tuple[Watcher, ...] = (),
) -> list[Record]:
    """Train the configuration unchanged and with each value of each axis, and write the results.

    ``out`` gets a folder for each run, and ``results.json``, ``table.md`` and ``plot.png``, which are updated after
    every run. Settings with equal configurations are trained once. Finished runs are kept and stopped runs resume.
    Raises InputError before any training if one of the runs could not begin.

    Args:
        source, overrides: the reference configuration.
        axes: values by key, as YAML.
        grid: train every combination of the values instead of one change at a time.
        seeds: empty: the configuration's seed.
        keep_checkpoints: keep ``last.ckpt`` in the folders of finished runs.
        dry_run: list the runs and train none.
    """
    settings = plan_ablation(
        Planner(source, overrides, out, alike=(*ALIKE, "method")), axes=axes, grid=grid, seeds=seeds
    )
    return run_into(
        out,
        _in_turn(settings),
        grid=lambda records: ablation_grid(settings, records),
        plot=lambda path, records: plot_ablation(path, settings, records),
        console=console,
        keep_checkpoints=keep_checkpoints,
        dry_run=dry_run,
        watchers=watchers,
    )


def plan_ablation(
    planner: Planner, *, axes: Mapping[str, Sequence[str]], grid: bool, seeds: Sequence[int]
) -> list[Setting]:
    """The reference, then every setting, with a trial per seed. Equal configurations share their trials."""
    if not axes:
        raise InputError("there is nothing to ablate; give --axis KEY=VALUE,VALUE")
    if "seed" in axes:
        raise InputError("--axis seed: give --seeds, over which every setting is averaged")
    known: dict[str, Trial] = {}

    def trials(name: str, overrides: Sequence[str]) -> tuple[Trial, ...]:
        chosen = []
        for seed in dict.fromkeys(seeds or (planner.shared.seed,)):
            trial = planner.trial((name, str(seed)), overrides, seed=seed, baseline=name == REFERENCE)
            content = str(trial.config.model_dump(exclude={"train": {"epochs"}}))  # the steps contain them
            chosen.append(known.setdefault(content, trial))
        return tuple(chosen)

    settings = [Setting(axis=REFERENCE, value="", trials=trials(REFERENCE, ()))]
    for axis, value, overrides in _changes(axes, grid=grid):
        settings.append(Setting(axis=axis, value=value, trials=trials(" ".join(overrides), overrides)))
    return settings


def _changes(axes: Mapping[str, Sequence[str]], *, grid: bool) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Axis, value and overrides of every setting. A grid has one axis, which combines all."""
    if not grid:
        for key, values in axes.items():
            yield from ((key, value, (f"{key}={value}",)) for value in values)
        return
    for combination in itertools.product(*axes.values()):
        overrides = tuple(f"{key}={value}" for key, value in zip(axes, combination, strict=True))
        yield ", ".join(axes), ", ".join(combination), overrides


def _in_turn(settings: Sequence[Setting]) -> list[Trial]:
    """Each trial once, ordered by seed, so that a stopped ablation has results for every setting."""
    by_seed = itertools.chain.from_iterable(zip(*(setting.trials for setting in settings), strict=True))
    return list({trial.folder: trial for trial in by_seed}.values())
