"""The commands that say what there is: presets and keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from u2pl.errors import InputError, quoted
from u2pl.paths import argument, output
from u2pl.report.printing import Styled, say, show

console = Console()


def presets(name: Annotated[str | None, typer.Argument(help="Print the YAML of this preset.")] = None) -> None:
    """List the presets, or print one."""
    from u2pl.config.preset_files import preset_about, preset_names

    if name is not None:
        if name not in preset_names():
            raise InputError(f"no preset {quoted(name)} (known: {', '.join(preset_names())})")
        from u2pl.config.reading import preset_text

        sys.stdout.write(preset_text(name))
        return
    for each in preset_names():
        say(console, Styled(f"{each:<22}", "bold"), f" {preset_about(each)}")


def keys(
    section: Annotated[str | None, typer.Argument(help="A section or a key, such as train or method.contrast.")] = None,
    everyday: Annotated[bool, typer.Option("--everyday", help="Only the keys that most runs set.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the documentation page of all keys.")] = False,
) -> None:
    """List the keys of a configuration with their defaults and meanings."""
    from u2pl.config.reference import keys as find_keys
    from u2pl.config.reference import markdown as page
    from u2pl.report.keys_table import keys_table

    if markdown:
        sys.stdout.write(page())
        return
    show(console, keys_table([key for key in find_keys(section) if key.everyday or not everyday]))


def convert_config(
    file: Annotated[
        Path, typer.Argument(parser=argument("FILE"), help="config.yaml of U2PL's released code, UniMatch or V2.")
    ],
    out: Annotated[Path | None, typer.Option(parser=output(), help="File to write. Default: print it.")] = None,
) -> None:
    """Turn a configuration of the released code or of UniMatch into ours. What has no counterpart is said."""
    from u2pl.commands.convert_config import convert_config as convert
    from u2pl.engine.checkpoint import write_text_atomically

    text, notes = convert(file)
    if out is None:
        sys.stdout.write(text)
        return
    if out.exists():
        raise InputError(f"--out {out}: exists; choose another file")
    write_text_atomically(out, text)
    for note in notes:
        say(console, f"not taken: {note}")
    say(console, f"{out}: check it with `u2pl check {out}`")
