"""The table of exported files."""

from __future__ import annotations

from collections.abc import Sequence

from u2pl.report.printing import TextTable

_COLUMNS = ("MB", "seconds", "difference", "equal pixels", "speed")


def exports_table(rows: Sequence[Sequence[str]]) -> TextTable:
    """One row per file: its name, then texts of its size, the time of its export, its agreement, and its speed."""
    table = TextTable()
    table.add_column("file", no_wrap=True)
    for header in _COLUMNS:
        table.add_column(header, justify="right")
    for row in rows:
        table.add_row(*row)
    return table
