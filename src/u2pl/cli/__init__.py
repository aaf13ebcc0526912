"""The command line: arguments in, lines out, no logic."""

from u2pl.cli.app import main

__all__ = ["main"]
