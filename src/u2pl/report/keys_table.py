"""The table of the keys of a configuration."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from u2pl.config.reference import Key


def keys_table(keys: Iterable[Key]) -> Table:
    """One row per key: its name, whether most runs set it, its default and its meaning."""
    table = Table()
    for name in ("key", "for", "default", "meaning"):
        table.add_column(name, overflow="fold", no_wrap=name == "for")
    for key in keys:
        default = f"{key.default} or auto" if key.auto else key.default
        use = Text("everyday", style="bold") if key.everyday else Text("research")
        table.add_row(Text(key.name), use, Text(default), Text(key.meaning))
    return table
