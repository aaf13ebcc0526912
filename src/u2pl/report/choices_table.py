"""The table of the values chosen in place of `auto`: setting, value, and reason."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from u2pl.auto.choices import Choice, value_text


def choices_table(choices: Iterable[Choice], *, verbose: bool = False) -> Table | None:
    """A row for each key that was `auto` and that the method uses; None without one.

    ``verbose`` adds further reasons, and keys that the method does not use.
    """
    rows = [choice for choice in choices if choice.used or verbose]
    if not rows:
        return None
    table = Table()
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("because", overflow="fold")
    for choice in rows:
        because = choice.because
        if verbose:
            because += "".join(f"; {more}" for more in (choice.detail, "" if choice.used else "not used") if more)
        for number, (key, value) in enumerate(choice.values.items()):
            table.add_row(Text(key), Text(value_text(value)), Text("" if number else because))
    return table
