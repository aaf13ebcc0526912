"""Arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

ConfigArgument = Annotated[str, typer.Argument(help="A preset's name (see `u2pl presets`) or a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Keys to set, such as data.root=DIR train.steps=2000. `u2pl keys` lists them."),
]
