"""The table of a data set: the share of pixels of each class, and the number of images that show it."""

from __future__ import annotations

from collections.abc import Sequence

from u2pl.data.inspection import Inspection
from u2pl.report.printing import TextTable

_ONE = ("labeled", "unlabeled", "validation")
_DOMAINS = ("source", "target", "target validation")


def data_line(inspection: Inspection, *, domains: bool = False) -> str:
    """Numbers and sizes of the images in one line. With ``domains``, labeled images are of the source domain."""
    counts = (inspection.labeled, inspection.unlabeled, inspection.val)
    parts = []
    for name, count, kind in zip(_DOMAINS if domains else _ONE, counts, ("labeled", "unlabeled", "val"), strict=True):
        size = f" of {_sizes(*inspection.sizes[kind])}" if kind in inspection.sizes else ""
        parts.append(f"{count} {name}{size}" if count else f"no {name}")
    return f"images (height x width): {', '.join(parts)}"


def data_table(inspection: Inspection, classes: Sequence[str], *, domains: bool = False) -> TextTable:
    """One row per class, and one for ignored pixels. Kinds of images that do not exist have no column.

    With ``domains``, labeled images are of the source domain and validation images of the target domain.
    """
    labeled, _, validation = _DOMAINS if domains else _ONE
    shown = {}
    if inspection.labeled:
        shown[labeled] = inspection.labeled_shares, inspection.labeled_images, inspection.labeled_ignored
    if inspection.val:
        shown[validation] = inspection.val_shares, inspection.val_images, inspection.val_ignored
    table = TextTable()
    table.add_column("class")
    for name in shown:
        table.add_column((name, "% of pixels"), justify="right")
        table.add_column(("", "images"), justify="right")
    if inspection.tagged:
        table.add_column(("tagged", "images"), justify="right")
    for label in classes:
        cells = [(f"{100 * shares[label]:.2f}", str(images[label])) for shares, images, _ in shown.values()]
        tagged = [str(inspection.tagged.get(label, ""))] if inspection.tagged else []
        table.add_row(label, *(cell for pair in cells for cell in pair), *tagged)
    ignored = [(f"{100 * share:.2f}", "") for *_, share in shown.values()]
    table.add_row("(ignored)", *(cell for pair in ignored for cell in pair))
    return table


def _sizes(smallest: tuple[int, int], largest: tuple[int, int]) -> str:
    small, large = ("x".join(map(str, size)) for size in (smallest, largest))
    return small if small == large else f"{small} to {large}"
