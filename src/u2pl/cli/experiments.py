"""The commands that train many runs for one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from u2pl.cli.arguments import ConfigArgument, Overrides
from u2pl.paths import output
from u2pl.report.printing import say

console = Console()

Seeds = Annotated[str | None, typer.Option(help="Seeds to average over, such as 0,1,2. Default: the configuration's.")]
Keep = Annotated[bool, typer.Option("--keep-checkpoints", help="Keep last.ckpt of finished runs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and list the runs, without training.")]


def compare(
    config: ConfigArgument,
    overrides: Overrides = None,
    methods: Annotated[str | None, typer.Option(help="Values of method.name, such as supervised,u2pl.")] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help='A named variant: "NAME: key=value key=value". May be repeated.')
    ] = None,
    labeled: Annotated[
        str | None,
        typer.Option(help="Counts, fractions or split files, such as 23,46,92. Default: the configuration's."),
    ] = None,
    seeds: Seeds = None,
    all_labels: Annotated[bool, typer.Option("--all-labels", help="Also train `supervised` on all labels.")] = False,
    out: Annotated[
        Path | None, typer.Option(parser=output(), help="Folder of all runs. Default: runs/compare-CONFIG.")
    ] = None,
    keep_checkpoints: Keep = False,
    dry_run: DryRun = False,
) -> None:
    """Compare methods at several numbers of labels and seeds, in one table and plot. Run it again to resume."""
    from u2pl.engine.machine import is_main_process
    from u2pl.experiments.arguments import parse_list, parse_seeds, parse_variants
    from u2pl.experiments.comparison import compare as run_comparison

    console.quiet = not is_main_process()
    folder = out or Path("runs") / f"compare-{Path(config).stem}"
    run_comparison(
        config,
        overrides or (),
        out=folder,
        methods=parse_list("--methods", methods),
        variants=parse_variants(variant or ()),
        labeled=parse_list("--labeled", labeled),
        seeds=parse_seeds(seeds),
        all_labels=all_labels,
        keep_checkpoints=keep_checkpoints,
        dry_run=dry_run,
        console=console,
    )
    _finish(folder, dry_run=dry_run)


def assess(
    config: ConfigArgument,
    overrides: Overrides = None,
    folds: Annotated[int, typer.Option(help="Parts of the labeled images, each of which is held out once.")] = 3,
    minutes: Annotated[float, typer.Option(help="For all trainings together; train.steps=N decides instead.")] = 15,
    out: Annotated[
        Path | None, typer.Option(parser=output(), help="Folder of the results. Default: runs/assess-CONFIG.")
    ] = None,
) -> None:
    """Do unlabeled images help here? Cross-validate labels alone against the method. Run it again to resume."""
    from u2pl.engine.machine import is_main_process
    from u2pl.experiments.assessment import PLOT, RESULT
    from u2pl.experiments.assessment import assess as run_assessment
    from u2pl.experiments.assessment_table import assessment_table
    from u2pl.report.printing import show

    console.quiet = not is_main_process()
    folder = out or Path("runs") / f"assess-{Path(config).stem}"
    result = run_assessment(config, overrides or (), out=folder, folds=folds, minutes=minutes, console=console)
    show(console, assessment_table(result))
    say(console, result.sentence())
    say(console, f"{RESULT} and {PLOT} in {folder}")


def ablate(
    config: ConfigArgument,
    overrides: Overrides = None,
    axis: Annotated[
        list[str] | None, typer.Option(help="A key and its values: KEY=VALUE,VALUE. May be repeated.")
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Train every combination, not one change at a time.")] = False,
    seeds: Seeds = None,
    out: Annotated[
        Path | None, typer.Option(parser=output(), help="Folder of all runs. Default: runs/ablate-CONFIG.")
    ] = None,
    keep_checkpoints: Keep = False,
    dry_run: DryRun = False,
) -> None:
    """Change one setting at a time and compare the results, in one table and plot. Run it again to resume."""
    from u2pl.engine.machine import is_main_process
    from u2pl.experiments.ablation import ablate as run_ablation
    from u2pl.experiments.arguments import parse_axes, parse_seeds

    console.quiet = not is_main_process()
    folder = out or Path("runs") / f"ablate-{Path(config).stem}"
    run_ablation(
        config,
        overrides or (),
        out=folder,
        axes=parse_axes(axis or ()),
        grid=grid,
        seeds=parse_seeds(seeds),
        keep_checkpoints=keep_checkpoints,
        dry_run=dry_run,
        console=console,
    )
    _finish(folder, dry_run=dry_run)


def _finish(folder: Path, *, dry_run: bool) -> None:
    if not dry_run:
        say(console, f"results.json, table.md and plot.png in {folder}")
