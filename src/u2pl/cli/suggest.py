"""The command that says which images to label next."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from u2pl.cli.failures import end_with
from u2pl.paths import argument, output
from u2pl.report.printing import say

console = Console()


def suggest(
    run: Annotated[
        Path,
        typer.Argument(parser=argument("RUN"), help="A finished run folder of `u2pl train`, or a .safetensors file."),
    ],
    out: Annotated[
        Path, typer.Option(parser=output(), help="Folder for suggested.csv, contact_sheet.png and drafts/.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Keys of the run to change, such as evaluation.flip=true data.value_range=[0,4095]."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(parser=argument("--images"), help="Folder of images. Default: the run's unlabeled images."),
    ] = None,
    count: Annotated[int, typer.Option(help="How many images to suggest.")] = 20,
    strategy: Annotated[
        str,
        typer.Option(
            help="`typical`: it resembles many images that resemble no labeled one; `expected`: the same, where the "
            "model is unsure; `diverse`: it resembles none; `entropy`: the model is unsure of it; `random`."
        ),
    ] = "typical",
    seed: Annotated[int, typer.Option(help="Decides between equal images, and draws those of `random`.")] = 0,
    tags: Annotated[
        bool, typer.Option("--tags", help="Also propose tags.csv, a csv for data.tags to correct by hand.")
    ] = False,
    weights: Annotated[
        str, typer.Option(help="`last` (end of training) or `best` (highest validation mIoU).")
    ] = "last",
    precision: Annotated[str, typer.Option(help="fp32, bf16 (faster) or auto (bf16 where native).")] = "fp32",
) -> None:
    """Rank unlabeled images by how much their masks would help, and draft the first masks."""
    from u2pl.commands.suggest import suggest as run_suggest
    from u2pl.report.progress import ProgressBar

    with ProgressBar(console, title="suggest") as bar:
        suggested = run_suggest(
            run,
            out,
            overrides=overrides or (),
            images=images,
            count=count,
            strategy=strategy,
            seed=seed,
            tags=tags,
            weights=weights,
            precision=precision,
            progress=bar.counted,
            say=partial(say, console),
        )
    say(console, f"{len(suggested.paths)} of {suggested.images} images, ranked, in {out / 'suggested.csv'}")
    say(console, f"thumbnails in {out / 'contact_sheet.png'}, masks to correct in {out / 'drafts'}")
    end_with(suggested.failed)
