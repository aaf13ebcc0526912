"""The command that trains a student on the pseudo-masks of a finished run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from u2pl.cli.arguments import Overrides
from u2pl.paths import argument, output
from u2pl.report.printing import say, show

console = Console()


def distill(
    run: Annotated[
        Path, typer.Argument(parser=argument("RUN"), help="The teacher: a finished run folder made by `u2pl train`.")
    ],
    out: Annotated[Path, typer.Option(parser=output(), help="Run folder of the student, with its pseudo-masks.")],
    overrides: Overrides = None,
    scales: Annotated[
        str, typer.Option(help="Factors of the size at which the teacher sees an image, averaged.")
    ] = "0.75,1,1.25",
    flip: Annotated[bool, typer.Option(help="The teacher also sees mirror images.")] = True,
    min_confidence: Annotated[
        float, typer.Option(help="Pixels of which the teacher is less sure do not train. 0: all pixels do.")
    ] = 0.0,
    weights: Annotated[str, typer.Option(help="Of the teacher: `last` or `best` (highest validation mIoU).")] = "last",
    precision: Annotated[str, typer.Option(help="Of the teacher: fp32, bf16 or auto (bf16 where native).")] = "fp32",
    verbose: Annotated[bool, typer.Option("--verbose", help="Print the full reasons of each choice.")] = False,
) -> None:
    """Label all unlabeled images of a run with its model, and train a student on them. Run it again to resume."""
    from u2pl.commands.distill import distill as run_distillation
    from u2pl.commands.pseudo_masks import Labelling, parse_scales
    from u2pl.engine.machine import is_main_process
    from u2pl.report.models_table import models_table
    from u2pl.report.progress import ProgressBar

    console.quiet = not is_main_process()
    labelling = Labelling(parse_scales(scales), flip, min_confidence, precision)
    with ProgressBar(console, title="student") as bar:
        distilled = run_distillation(
            run,
            out,
            overrides or (),
            weights=weights,
            labelling=labelling,
            progress=bar.labeled,
            watchers=(bar,),
            say=partial(say, console),
            console=console,
            verbose=verbose,
        )
    rows = [
        (each.name, each.network, None if each.scores is None else each.scores.miou, each.parameters)
        for each in distilled.models
    ]
    show(console, models_table(rows, title="validation"))
    say(console, f"weights, metrics, curves and pseudo-masks in {distilled.folder}")
