"""The only way to the terminal. Names of classes, files and folders are printed as they are.

Nothing in a text is markup, an emoji code or a control character: :func:`~u2pl.printable.printable` escapes those.
Styles are given apart from the text. In a pipe, no line is broken.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from io import StringIO
from typing import Any, NamedTuple, TypeVar

from rich import box
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from u2pl.printable import printable

_WIDE = 1_000_000  # characters per line in a pipe: enough for no line break

Item = TypeVar("Item")


class Styled(NamedTuple):
    """A text and how it looks, such as ``bold`` or ``red``."""

    text: str
    style: str


#: A tuple is one line for each of its texts.
Words = str | Styled | tuple[str, ...]


def text_of(words: Words) -> Text:
    """The words for rich, which prints them as they are."""
    if isinstance(words, Styled):
        return Text(printable(words.text), words.style)
    return Text("\n".join(map(printable, (words,) if isinstance(words, str) else words)))


def say(console: Console, *parts: str | Styled, style: str = "") -> None:
    """Print one line of these parts, which is as long as it is."""
    line = Text.assemble(*map(text_of, parts), style=style)
    console.print(line, highlight=False, soft_wrap=True)


def complain(line: str) -> None:
    """Print one line on stderr."""
    say(Console(stderr=True), line)


def print_line(line: str) -> None:
    """Print one line on stdout."""
    say(Console(), line)


def accept_all_text() -> None:
    """Let stdout escape the characters that its encoding lacks. Otherwise they would be an error."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


class TextTable:
    """A table of plain text."""

    def __init__(self, *, title: Words = "") -> None:
        self.title = title
        self.columns: list[tuple[Words, dict[str, Any]]] = []
        self.rows: list[tuple[tuple[Words, ...], dict[str, Any]]] = []

    def add_column(self, header: Words, *, justify: JustifyMethod = "left", no_wrap: bool = False) -> None:
        """Add a column. In a narrow terminal its cells take several lines or, with ``no_wrap``, are cut off."""
        overflow = "ellipsis" if no_wrap else "fold"
        self.columns.append((header, {"justify": justify, "no_wrap": no_wrap, "overflow": overflow}))

    def add_row(self, *cells: Words, style: str = "", last: bool = False) -> None:
        """Add a row with a cell for each column; the ``last`` one of a section has a rule below it in a terminal."""
        self.rows.append((cells, {"style": style, "end_section": last}))

    def for_rich(self, **look: Any) -> Table:
        """The table as rich prints it."""
        table = Table(**look)
        for header, options in self.columns:
            table.add_column(text_of(header), **options)
        for cells, options in self.rows:
            table.add_row(*map(text_of, cells), **options)
        return table


def show(console: Console, table: TextTable, *, narrow: TextTable | None = None, note: str = "") -> None:
    """Print a table: in a terminal with rules and within its width; in a pipe without rules, and no line broken.

    A terminal that is too narrow for the table gets the ``narrow`` one. The note stands below.
    """
    if not console.is_terminal:
        _show_plainly(console, table)
        if note:
            say(console, note)
        return
    look: dict[str, Any] = {"box": box.SIMPLE_HEAD, "caption_justify": "left"}
    look |= {"title": text_of(table.title) if table.title else None, "caption": text_of(note) if note else None}
    shown = table.for_rich(**look)
    whole = Measurement.get(console, console.options.update(max_width=_WIDE), shown).maximum
    if narrow is not None and whole > console.width:
        shown = narrow.for_rich(**look)
    console.print(shown, highlight=False)


def _show_plainly(console: Console, table: TextTable) -> None:
    text = StringIO()
    shown = table.for_rich(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    Console(file=text, width=_WIDE).print(shown, highlight=False)
    title = text_of(table.title).plain.split("\n") if table.title else []
    for line in (*title, *text.getvalue().split("\n")[:-1]):
        say(console, line.rstrip())


def progress_bar(console: Console, *further: Callable[[Task], str], transient: bool = False) -> Progress:
    """A bar with a description, counts and the time left, and ``further`` texts. It is hidden in a pipe."""
    fields = (_Field(lambda task: task.description), _Field(lambda task: f"{task.completed:.0f}/{task.total or 0:.0f}"))
    columns = (SpinnerColumn(), fields[0], BarColumn(), fields[1], TimeRemainingColumn(), *map(_Field, further))
    return Progress(*columns, console=console, transient=transient, disable=not console.is_terminal)


def track(items: Iterable[Item], description: str, *, total: int, console: Console) -> Iterator[Item]:
    """The items, with a bar that shows how many are done."""
    with progress_bar(console) as bar:
        yield from bar.track(items, total=total, description=description)


class _Field(ProgressColumn):
    """A text of a bar."""

    def __init__(self, read: Callable[[Task], str]) -> None:
        super().__init__()
        self.read = read

    def render(self, task: Task) -> Text:
        return text_of(self.read(task))
