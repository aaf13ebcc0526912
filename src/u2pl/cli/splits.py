"""The commands that fetch and draw split files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from u2pl.cli.arguments import ConfigArgument, Overrides
from u2pl.paths import output
from u2pl.report.printing import say

splits = typer.Typer(help="Split files, which list the labeled images: fetch the published ones, or draw your own.")
console = Console()


@splits.command("fetch")
def fetch_splits(
    name: Annotated[str, typer.Argument(help="pascal (VOC 2012, classic and blender) or cityscapes.")],
    out: Annotated[
        Path, typer.Option(parser=output(), help="Folder for NAME/val.txt, NAME/COUNT/labeled.txt and unlabeled.txt.")
    ] = Path("splits"),
    url: Annotated[str | None, typer.Option(help="Another server: files are at URL/NAME/COUNT/labeled.txt.")] = None,
) -> None:
    """Fetch and check the split files published with the paper."""
    from u2pl.commands.splits import fetch_splits

    say(console, f"{fetch_splits(name, out, url=url)} files in {out / name}")


@splits.command("draw")
def draw_splits(
    config: ConfigArgument,
    labeled: Annotated[str, typer.Option(help="Number of labeled images, such as 46, or several: 23,46,92.")],
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the draw. Default: the configuration's.")] = None,
    out: Annotated[
        Path | None, typer.Option(parser=output(), help="Folder for COUNT/labeled.txt. Default: splits/CONFIG.")
    ] = None,
) -> None:
    """Draw split files from the labeled images of a data set. They cover every class that fits, rare ones first."""
    from u2pl.commands.splits import draw_splits, read_counts
    from u2pl.config.overrides import load_config

    folder = out or Path("splits") / Path(config).stem
    settings = load_config(config, [*(overrides or ()), *([] if seed is None else [f"seed={seed}"])])
    say(console, f"{draw_splits(settings, read_counts(labeled), folder)} files in {folder}")
