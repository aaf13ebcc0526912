"""How a command ends that left some of its files out."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from u2pl.report.printing import complain


def end_with(failed: Sequence[str]) -> None:
    """Print why each of these files was left out, one line each, and end with exit code 1; nothing if none was."""
    for line in failed:
        complain(f"u2pl: {line}")
    if failed:
        raise typer.Exit(1)
