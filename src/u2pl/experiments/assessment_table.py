"""The table of an assessment: each class with and without unlabeled images."""

from __future__ import annotations

from u2pl.experiments.assessment import Assessment
from u2pl.report.printing import TextTable


def assessment_table(result: Assessment) -> TextTable:
    """A row for each class, and the mean. The gain has its 95 % interval over images."""
    table = TextTable(title=f"IoU in % over {result.images} labeled images, each held out once; {result.steps} steps")
    table.add_column("class")
    for column in ("labels alone", result.method, "gain", "95 % interval"):
        table.add_column(column, justify="right")
    rows = [*result.by_class.items(), ("mIoU", (result.supervised, result.semi, result.gain))]
    for name, (plain, semi, found) in rows:
        table.add_row(
            name, f"{plain:.1f}", f"{semi:.1f}", f"{found.points:+.1f}", f"{found.low:+.1f} to {found.high:+.1f}"
        )
    return table
