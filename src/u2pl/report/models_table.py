"""A table of two models: how well they do, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence

from u2pl.report.printing import TextTable
from u2pl.report.table import percent


def models_table(models: Sequence[tuple[str, str, float | None, int]], *, title: str) -> TextTable:
    """One row per model: its name, its network, its mIoU in percent (None: not known), and its parameters."""
    table = TextTable(title=title)
    for header in ("", "network"):
        table.add_column(header)
    for header in ("mIoU %", "parameters"):
        table.add_column(header, justify="right")
    for name, network, miou, parameters in models:
        table.add_row(name, network, percent(miou), f"{parameters / 1e6:.2f} M")
    return table
