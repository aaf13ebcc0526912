"""The table of the values chosen in place of `auto`: setting, value, and reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from u2pl.auto.choices import Choice, value_text
from u2pl.report.printing import TextTable


def choices_table(
    choices: Iterable[Choice], *, runs: Mapping[str, str] | None = None, verbose: bool = False
) -> TextTable | None:
    """A row for each key that was `auto` and that the method uses; None without one.

    ``verbose`` adds further reasons, and keys that the method does not use. ``runs`` names the runs of a choice, by its
    text, if other runs have another one.
    """
    rows = [choice for choice in choices if choice.used or verbose]
    if not rows:
        return None
    table = TextTable()
    table.add_column("setting", no_wrap=True)
    table.add_column("value")
    if runs:
        table.add_column("runs")
    table.add_column("because")
    for choice in rows:
        because = choice.because
        if verbose:
            because += "".join(f"; {more}" for more in (choice.detail, "" if choice.used else "not used") if more)
        for number, (key, value) in enumerate(choice.values.items()):
            told = [runs.get(str(choice), "")] if runs else []
            table.add_row(key, value_text(value), *told, "" if number else because)
    return table
