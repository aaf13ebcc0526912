"""A table of text, for the terminal and for documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Grid:
    """Header and rows of equal length. The first ``names`` columns are names, the others numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str  #: what the numbers are
    names: int = 1

    def markdown(self) -> str:
        """A table in GitHub's Markdown, with the note below it."""
        rule = ["---" if column < self.names else "---:" for column in range(len(self.header))]
        lines = [self.header, rule, *self.rows]
        text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"{text}\n\n{self.note}\n"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table for the terminal. If the terminal is too narrow, numbers take several lines."""
        table = self._table(lambda cell: cell)
        if Measurement.get(console, options.update(max_width=10_000), table).maximum > options.max_width:
            table = self._table(_narrow)
        yield table

    def _table(self, shape: Callable[[str], str]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=Text(self.note), caption_justify="left")
        for column, title in enumerate(self.header):
            if column < self.names:
                table.add_column(Text(title), overflow="fold")
            else:
                table.add_column(Text(shape(title)), justify="right", overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row[: self.names]), *(Text(shape(cell)) for cell in row[self.names :]))
        return table


def _narrow(cell: str) -> str:
    """Mean, deviation and remark on separate lines."""
    return (
        cell.replace(" ±", "\n±").replace(" (", "\n(").replace(" labels", "\nlabels").replace(" training", "\ntraining")
    )
