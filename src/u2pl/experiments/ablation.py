"""One setting after another changed, against the configuration as it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from u2pl.engine.fit import Watcher
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
    """Train the configuration as it is, and with each value of each axis, and write what comes of it.

    ``out`` gets a run folder each, ``results.json``, ``table.md`` and ``plot.png``; these are written anew after every
    run. Settings that come to the same configuration are trained once. Runs that are finished are left alone, and one
    that was stopped goes on. Raises InputError before any training where one of them could not begin.

    Args:
        source, overrides: the reference.
        axes: values by key, as YAML.
        grid: every combination of the values in place of one change at a time.
        seeds: none: the configuration's own.
        keep_checkpoints: leave ``last.ckpt`` in the folders of finished runs.
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
    """The reference, then every setting, with a trial for each seed; equal configurations share theirs."""
    if not axes:
        raise InputError("there is nothing to ablate; give --axis KEY=VALUE,VALUE")
    if "seed" in axes:
        raise InputError("--axis seed: give --seeds, over which every setting is averaged")
    known: dict[str, Trial] = {}

    def trials(name: str, overrides: Sequence[str]) -> tuple[Trial, ...]:
        chosen = []
        for seed in dict.fromkeys(seeds or (planner.shared.seed,)):
            trial = planner.trial((name, str(seed)), overrides, seed=seed, baseline=name == REFERENCE)
            content = trial.config.model_dump_json(exclude={"train": {"epochs"}})  # the steps say it all
            chosen.append(known.setdefault(content, trial))
        return tuple(chosen)

    settings = [Setting(axis=REFERENCE, value="", trials=trials(REFERENCE, ()))]
    for axis, value, overrides in _changes(axes, grid=grid):
        settings.append(Setting(axis=axis, value=value, trials=trials(" ".join(overrides), overrides)))
    return settings


def _changes(axes: Mapping[str, Sequence[str]], *, grid: bool) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Axis, value and overrides of every setting; of a grid, the axes are one."""
    if not grid:
        for key, values in axes.items():
            yield from ((key, value, (f"{key}={value}",)) for value in values)
        return
    for combination in itertools.product(*axes.values()):
        overrides = tuple(f"{key}={value}" for key, value in zip(axes, combination, strict=True))
        yield ", ".join(axes), ", ".join(combination), overrides


def _in_turn(settings: Sequence[Setting]) -> list[Trial]:
    """Each trial once, those of the first seed first: an ablation that is stopped has something of everything."""
    by_seed = itertools.chain.from_iterable(zip(*(setting.trials for setting in settings), strict=True))
    return list({trial.folder: trial for trial in by_seed}.values())
