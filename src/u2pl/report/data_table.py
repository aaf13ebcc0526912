"""The table of a data set: the share of pixels of each class, and the number of images that show it."""

from __future__ import annotations

from collections.abc import Sequence

from u2pl.data.inspection import Inspection
from u2pl.report.printing import TextTable

_ONE = {"labeled": "labeled", "unlabeled": "unlabeled", "val": "validation"}
_DOMAINS = {"labeled": "source", "unlabeled": "target", "val": "target validation"}
_DOMAINS_LABELED = {  # with labels of both
    "labeled": "source labeled",
    "target": "target labeled",
    "unlabeled": "target unlabeled",
    "val": "target validation",
}


def data_line(inspection: Inspection, *, domains: bool = False) -> str:
    """Numbers and sizes of the images in one line. With ``domains``, labeled images are of the source domain."""
    counts = {"labeled": inspection.labeled, "unlabeled": inspection.unlabeled, "val": inspection.val}
    if inspection.target is not None:
        counts["target"] = inspection.target.number
    parts = []
    for kind, name in _names(inspection, domains).items():
        size = f" of {_sizes(*inspection.sizes[kind])}" if kind in inspection.sizes else ""
        parts.append(f"{counts[kind]} {name}{size}" if counts[kind] else f"no {name}")
    return f"images (height x width): {', '.join(parts)}"


def data_table(inspection: Inspection, classes: Sequence[str], *, domains: bool = False) -> TextTable:
    """One row per class, and one for ignored pixels. Kinds of images that do not exist have no column.

    With ``domains``, labeled images are of the source domain and validation images of the target domain. Labeled images
    of the target have columns of their own.
    """
    names, own = _names(inspection, domains), inspection.target
    shown = {}
    if inspection.labeled:
        shown[names["labeled"]] = inspection.labeled_shares, inspection.labeled_images, inspection.labeled_ignored
    if own is not None:
        shown[names["target"]] = own.shares, own.images, own.ignored
    if inspection.val:
        shown[names["val"]] = inspection.val_shares, inspection.val_images, inspection.val_ignored
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


def _names(inspection: Inspection, domains: bool) -> dict[str, str]:
    """The kinds of images, with their names, in their order."""
    if inspection.target is not None:
        return _DOMAINS_LABELED
    return _DOMAINS if domains else _ONE


def _sizes(smallest: tuple[int, int], largest: tuple[int, int]) -> str:
    small, large = ("x".join(map(str, size)) for size in (smallest, largest))
    return small if small == large else f"{small} to {large}"
