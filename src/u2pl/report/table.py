"""Tables of scores for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table

from u2pl.engine.evaluate import Scores

_WIDE = 1000  # characters per line in a pipe: enough for no line break


def show(console: Console, table: Table) -> None:
    """Print a table: in a terminal with rules and within its width; in a pipe without rules, and no line broken."""
    if console.is_terminal:
        table.box = box.SIMPLE_HEAD
        console.print(table, highlight=False)
        return
    if table.title is not None:
        console.print(str(table.title), highlight=False, markup=False, soft_wrap=True)
    table.title, table.box, table.padding, table.pad_edge = None, None, (0, 2, 0, 0), False
    text = StringIO()
    Console(file=text, width=_WIDE).print(table, highlight=False)
    for line in text.getvalue().splitlines():
        console.print(line.rstrip(), highlight=False, markup=False, soft_wrap=True)


def percent(value: float | None) -> str:
    """A number with one decimal; a dash for a class that does not occur."""
    return "-" if value is None else f"{value:.1f}"


def stage_table(scores: Scores, *, title: str) -> Table:
    """The scores of one model. If maps from image-level tags trained it, their scores get columns too."""
    if not scores.stages:
        return score_table({"IoU %": scores}, title=title)
    told = f"{title}\nIoU %; the maps are told the classes of each mask"
    return score_table({**scores.stages, "segmentation": scores}, title=told)


def score_table(scores: Mapping[str, Scores], *, title: str) -> Table:
    """One column per model and one row per class. With two models there is a column for the gain."""
    columns = list(scores)
    table = Table(title=title)
    table.add_column("class")
    for name in columns:
        table.add_column(name, justify="right")
    gain = len(columns) == 2
    if gain:
        table.add_column("gain", justify="right")

    def row(label: str, values: list[float | None], style: str | None = None) -> None:
        first, last = values[0], values[-1]
        extra = [f"{last - first:+.1f}" if first is not None and last is not None else "-"] if gain else []
        table.add_row(label, *map(percent, values), *extra, style=style)

    for label in next(iter(scores.values())).iou:
        row(label, [scores[name].iou[label] for name in columns])
    table.add_section()
    row("mIoU", [scores[name].miou for name in columns], style="bold")
    row("pixel accuracy", [scores[name].pixel_accuracy for name in columns])
    return table
