"""Comparisons of methods and variants at several numbers of labels, over several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from u2pl.engine.run import Watcher
from u2pl.errors import InputError
from u2pl.experiments.comparison_plot import plot_comparison
from u2pl.experiments.comparison_table import comparison_grid
from u2pl.experiments.fairness import differences, require_fairness
from u2pl.experiments.records import Record
from u2pl.experiments.running import run_into
from u2pl.experiments.trials import Planner, Trial, across_domains, labeled_text
from u2pl.report.printing import say, show

ALL_LABELS = "supervised, all labels"


def compare(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    out: Path,
    methods: Sequence[str] = (),
    variants: Mapping[str, Sequence[str]] | None = None,
    labeled: Sequence[str] = (),
    seeds: Sequence[int] = (),
    all_labels: bool = False,
    keep_checkpoints: bool = False,
    dry_run: bool = False,
    console: Console,
    watchers: tuple[Watcher, ...] = (),
) -> list[Record]:
    """Train every method and variant with every number of labels and seed, and write the results.

    ``out`` gets a folder for each run, and ``results.json``, ``table.md`` and ``plot.png``, which are updated after
    every run. Finished runs are kept and stopped runs resume. Raises InputError before any training if one of the runs
    could not begin, or if a shared setting helps one method and not another.

    Args:
        source, overrides: the configuration that all runs share.
        methods: values of ``method.name``.
        variants: overrides by the variant's name in the table.
        labeled: values of ``data.labeled`` (with two domains, of the source; labels of the target are a setting of all
            lines or of a variant, ``data.target.labeled``); empty: the configuration's value.
        seeds: empty: the configuration's seed.
        all_labels: also train ``supervised`` on all labels (with two domains, of the target).
        keep_checkpoints: keep ``last.ckpt`` in the folders of finished runs.
        dry_run: list the runs and train none.
    """
    trials = plan_comparison(
        Planner(source, overrides, out),
        methods=methods,
        variants=variants or {},
        labeled=labeled,
        seeds=seeds,
        all_labels=all_labels,
    )
    table = differences(trials)
    if table is not None:
        say(console, "settings that differ between the lines, each method's own parts aside:")
        show(console, table)
    return run_into(
        out,
        trials,
        grid=lambda records: comparison_grid(trials, records),
        plot=lambda path, records: plot_comparison(path, trials, records),
        console=console,
        keep_checkpoints=keep_checkpoints,
        dry_run=dry_run,
        watchers=watchers,
    )


def plan_comparison(
    planner: Planner,
    *,
    methods: Sequence[str],
    variants: Mapping[str, Sequence[str]],
    labeled: Sequence[str],
    seeds: Sequence[int],
    all_labels: bool,
) -> list[Trial]:
    """All trials, ordered by seed, so that a stopped comparison has results for every method.

    Raises InputError for a trial that could not begin, and for a shared setting that helps one method and not another.
    """
    lines: dict[str, tuple[str, ...]] = {name: (f"method.name={name}",) for name in methods}
    for name, settings in variants.items():
        if name in lines or name == ALL_LABELS:
            raise InputError(f"--variant {name}: is also the name of another line; name it apart")
        for setting in settings:
            if setting.partition("=")[0] in ("seed", "data.labeled"):
                raise InputError(f"--variant {name}: {setting}: give --seeds or --labeled, which all lines share")
        lines[name] = tuple(settings)
    if not lines:
        raise InputError("there is nothing to compare; give --methods or --variant")
    two = across_domains(planner.shared)
    of, best = ("data.source", ["data.upper_bound=true"]) if two else ("data", ["data.labeled=1.0"])
    if two and planner.shared.data.validated.labeled is not None:
        best.append("data.target.labeled=null")  # all its labels train
    columns: dict[str, tuple[str, ...]] = {text: (f"{of}.labeled={text}",) for text in labeled}
    columns = columns or {labeled_text(planner.shared): ()}
    trials = []
    for seed in dict.fromkeys(seeds or (planner.shared.seed,)):
        for text, column in columns.items():
            for name, line in lines.items():
                trials.append(planner.trial((name, text, str(seed)), (*line, *column), seed=seed))
        if all_labels:
            upper = ("method.name=supervised", *best)
            parts = (ALL_LABELS, "1.0", str(seed))
            trials.append(planner.trial(parts, upper, seed=seed, baseline=True))
    require_fairness(planner.shared, {trial.name: trial.config for trial in trials})
    return trials
