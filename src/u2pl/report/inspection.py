"""What `u2pl check` prints of a data set."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from u2pl.build import build_source, ranks, uses_ranks
from u2pl.data.inspection import Inspection, inspect
from u2pl.recipes import load_config


def print_inspection(source: str, overrides: Sequence[str], console: Console) -> bool:
    """Read all data of a configuration and print what is there; whether it can be trained on."""
    config = load_config(source, overrides)
    data = build_source(config.data, seed=config.seed)
    if uses_ranks(config.method):
        ranks(config.method, len(data.classes))
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading")
        inspection = inspect(
            data,
            semi_supervised=config.method.name != "supervised",
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(
        f"{inspection.labeled} labeled, {inspection.unlabeled} unlabeled, {inspection.val} validation images, "
        f"{_sizes(inspection)} (height x width), {len(data.classes)} classes",
        highlight=False,
    )
    table = Table(title="share of pixels, %")
    for name in ("class", "labeled", "validation"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for name in data.classes:
        table.add_row(name, *(f"{100 * shares.get(name, 0):.2f}" for shares in _shares(inspection)))
    console.print(table)
    for kind, lines in (("error", inspection.errors), ("warning", inspection.warnings)):
        for line in lines:
            console.print(f"{kind}: {line}", highlight=False, markup=False, soft_wrap=True)
    console.print("errors must be mended before training" if inspection.errors else "ready to train", highlight=False)
    return not inspection.errors


def _shares(inspection: Inspection) -> tuple[dict[str, float], dict[str, float]]:
    return dict(inspection.labeled_shares), dict(inspection.val_shares)


def _sizes(inspection: Inspection) -> str:
    if inspection.smallest is None or inspection.largest is None:
        return "no size"
    small, large = ("x".join(map(str, size)) for size in (inspection.smallest, inspection.largest))
    return small if small == large else f"{small} to {large}"
