"""The table of the keys of a configuration."""

from __future__ import annotations

from collections.abc import Iterable

from u2pl.config.reference import Key
from u2pl.report.printing import Styled, TextTable


def keys_table(keys: Iterable[Key]) -> TextTable:
    """One row per key: its name, whether most runs set it, its default and its meaning."""
    table = TextTable()
    for name in ("key", "for", "default", "meaning"):
        table.add_column(name, no_wrap=name == "for")
    for key in keys:
        default = f"{key.default} or auto" if key.auto else key.default
        use = Styled("everyday", "bold") if key.everyday else "research"
        table.add_row(key.name, use, default, key.meaning)
    return table
