"""The command that writes the report of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from u2pl.paths import argument, output
from u2pl.report.printing import say

console = Console()


def report(
    runs: Annotated[
        list[Path], typer.Argument(parser=argument("RUN"), help="Finished run folders made by `u2pl train`.")
    ],
    out: Annotated[
        Path | None, typer.Option(parser=output(), help="The file. Default: report.html in, or around, the folders.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Images of the gallery. Default: as many as a few seconds allow, at most 200.")
    ] = None,
) -> None:
    """Write one HTML file about runs: scores, curves, confusion, calibration, and a gallery of predictions."""
    from u2pl.commands.report import report as write_report

    say(console, f"report in {write_report(runs, out, images=images, console=console)}")
