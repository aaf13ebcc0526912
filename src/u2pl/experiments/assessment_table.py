"""The table of an assessment: each class with and without unlabeled images."""

from __future__ import annotations

from u2pl.experiments.assessment import Assessment
from u2pl.report.printing import TextTable


def assessment_table(result: Assessment) -> TextTable:
    """A row for each class, and the mean. The gain has its 95 % interval over images, or over groups of them."""
    groups = "" if result.gain.groups is None else f" in {result.gain.groups} groups"
    held_out = f"{result.images} labeled images{groups}, each held out once"
    table = TextTable(title=f"IoU in % over {held_out}; {result.steps} steps")
    table.add_column("class")
    for column in ("labels alone", result.method, "gain", "95 % interval"):
        table.add_column(column, justify="right")
    rows = [*result.by_class.items(), ("mIoU", (result.supervised, result.semi, result.gain))]
    for name, (plain, semi, found) in rows:
        table.add_row(name, f"{plain:.1f}", f"{semi:.1f}", f"{found.points:+.1f}", found.between() or "-")
    return table
