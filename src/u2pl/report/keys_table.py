"""The keys of a configuration, as a table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from u2pl.config.reference import Key


def keys_table(keys: Iterable[Key]) -> Table:
    """A row a key: its name, what most runs do with it, its default and its meaning."""
    table = Table()
    for name in ("key", "for", "default", "meaning"):
        table.add_column(name, overflow="fold", no_wrap=name == "for")
    for key in keys:
        default = f"{key.default} or auto" if key.auto else key.default
        use = Text("everyday", style="bold") if key.everyday else Text("research")
        table.add_row(Text(key.name), use, Text(default), Text(key.meaning))
    return table
