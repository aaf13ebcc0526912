"""Tables of scores."""

from __future__ import annotations

from collections.abc import Mapping

from u2pl.engine.evaluate import Scores
from u2pl.report.printing import TextTable, Words


def percent(value: float | None) -> str:
    """A number with one decimal; a dash for a class that does not occur."""
    return "-" if value is None else f"{value:.1f}"


def stage_table(scores: Scores, *, title: str) -> TextTable:
    """The scores of one model. If maps from image-level tags trained it, their scores get columns too."""
    if not scores.stages:
        return score_table({"IoU %": scores}, title=title)
    told = (title, "IoU %; the maps are told the classes of each mask")
    return score_table({**scores.stages, "segmentation": scores}, title=told)


def score_table(scores: Mapping[str, Scores], *, title: Words, difference: str = "gain") -> TextTable:
    """One column per model and one row per class. With two models, ``difference`` heads the second minus the first."""
    columns = list(scores)
    table = TextTable(title=title)
    table.add_column("class")
    for name in columns:
        table.add_column(name, justify="right")
    two = len(columns) == 2
    if two:
        table.add_column(difference, justify="right")

    def row(label: str, values: list[float | None], *, style: str = "", last: bool = False) -> None:
        before, after = values[0], values[-1]
        extra = [f"{after - before:+.1f}" if before is not None and after is not None else "-"] if two else []
        table.add_row(label, *map(percent, values), *extra, style=style, last=last)

    labels = list(next(iter(scores.values())).iou)
    for label in labels:
        row(label, [scores[name].iou[label] for name in columns], last=label == labels[-1])
    row("mIoU", [scores[name].miou for name in columns], style="bold")
    row("pixel accuracy", [scores[name].pixel_accuracy for name in columns])
    return table
