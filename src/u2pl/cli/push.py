"""The command that puts a finished run on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from u2pl.paths import argument, output
from u2pl.report.printing import say

console = Console()


def push(
    run: Annotated[Path, typer.Argument(parser=argument("RUN"), help="A finished run folder made by `u2pl train`.")],
    repository: Annotated[str, typer.Argument(help="The repository, user/name. It is made if it does not exist.")],
    private: Annotated[bool, typer.Option("--private/--public", help="Who sees it: only you, or everybody.")] = True,
    weights: Annotated[str, typer.Option(help="`last` or `best` (highest validation mIoU).")] = "last",
    out: Annotated[
        Path | None, typer.Option(parser=output(), help="Push nothing: write what would be pushed into this folder.")
    ] = None,
) -> None:
    """Push a model to the Hugging Face Hub: weights, settings and a model card, without images and paths.

    `u2pl.Predictor.from_hub("user/name")` and `u2pl predict hf://user/name` use it. To write the model card yourself,
    put README.md into the run folder.
    """
    from u2pl.commands.push import push as push_run
    from u2pl.commands.push import write_contents

    if out is not None:
        write_contents(run, repository, out, weights=weights)
        say(console, f"nothing is pushed; the files of {repository} are in {out}")
        return
    address = push_run(run, repository, weights=weights, private=private)
    say(console, f"{weights} weights in {address}, for {'you only' if private else 'everybody'}")
