"""A table of text, for the terminal and for documents."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from u2pl.printable import printable
from u2pl.report.printing import TextTable, Words, show

#: What Markdown would read as a sign. An underscore inside a word, and a bracket that no link follows, are none.
_SIGNS = re.compile(r"[\\`*|<~$]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|&(?=#?\w+;)")


@dataclass(frozen=True)
class Grid:
    """Header and rows of equal length. The first ``names`` columns are names, the others numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str  #: what the numbers are
    names: int = 1

    def markdown(self) -> str:
        """A table in GitHub's Markdown, with the note below it. Signs in names are escaped."""
        rule = ["---" if column < self.names else "---:" for column in range(len(self.header))]
        header, *rows = (
            [_SIGNS.sub(r"\\\g<0>", printable(cell)) for cell in line] for line in (self.header, *self.rows)
        )
        text = "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *rows))
        return f"{text}\n\n{self.note}\n"

    def table(self, shape: Callable[[str], Words] = str) -> TextTable:
        """The table to print, with numbers in this shape."""
        table = TextTable()
        for column, title in enumerate(self.header):
            if column < self.names:
                table.add_column(title)
            else:
                table.add_column(shape(title), justify="right")
        for row in self.rows:
            table.add_row(*row[: self.names], *map(shape, row[self.names :]))
        return table


def show_grid(console: Console, grid: Grid) -> None:
    """Print the table. If the terminal is too narrow, numbers take several lines."""
    show(console, grid.table(), narrow=grid.table(_narrow), note=grid.note)


def _narrow(cell: str) -> Words:
    """Mean, deviation and remark on separate lines."""
    return tuple(re.sub(r" (?=±|\(|labels|training)", "\n", printable(cell)).split("\n"))
