"""What `u2pl check` prints of a data set."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from u2pl.auto.resolving import resolved
from u2pl.build import build_negative_keys, build_source, check_image_prior
from u2pl.commands.train import fabric_of
from u2pl.config.overrides import load_config
from u2pl.data.inspection import Inspection, inspect
from u2pl.data.source import DataSource


def print_inspection(source: str, overrides: Sequence[str], console: Console) -> bool:
    """Read all data of a configuration and print what is there; whether it can be trained on."""
    config = load_config(source, overrides)
    data = build_source(config.data, seed=config.seed)
    if config.method.uses_negative_keys:
        build_negative_keys(config.method, len(data.classes))
    check_image_prior(config)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading")
        inspection = inspect(
            data,
            semi_supervised=config.method.name != "supervised",
            weak=config.method.kind.uses_tags,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    domains = config.data.name == "domain" and not config.data.upper_bound
    for line in _domain_counts(inspection, data) if domains else [_counts(inspection, data)]:
        console.print(line, highlight=False, soft_wrap=True)
    table = Table(title="share of pixels, %")
    for name in ("class", *(("source", "target (val)") if domains else ("labeled", "validation"))):
        table.add_column(name, justify="left" if name == "class" else "right")
    if inspection.tagged:
        table.add_column("tagged images", justify="right")
    for name in data.classes:
        tagged = [str(inspection.tagged.get(name, ""))] if inspection.tagged else []
        table.add_row(name, *(f"{100 * shares.get(name, 0):.2f}" for shares in _shares(inspection)), *tagged)
    console.print(table)
    for kind, lines in (("error", inspection.errors), ("warning", inspection.warnings)):
        for line in lines:
            console.print(f"{kind}: {line}", highlight=False, markup=False, soft_wrap=True)
    if not inspection.errors:
        for choice in resolved(config, data, fabric_of(config.train)).choices:
            if choice.used:
                console.print(str(choice), highlight=False, markup=False, soft_wrap=True)
    console.print("errors must be mended before training" if inspection.errors else "ready to train", highlight=False)
    return not inspection.errors


def _shares(inspection: Inspection) -> tuple[dict[str, float], dict[str, float]]:
    return dict(inspection.labeled_shares), dict(inspection.val_shares)


def _counts(inspection: Inspection, data: DataSource) -> str:
    return (
        f"{inspection.labeled} labeled, {inspection.unlabeled} unlabeled, {inspection.val} validation images, "
        f"{_sizes(inspection.smallest, inspection.largest)} (height x width), {len(data.classes)} classes"
    )


def _domain_counts(inspection: Inspection, data: DataSource) -> list[str]:
    """A line for each domain."""
    sizes = {kind: _sizes(*pair) for kind, pair in inspection.sizes.items()}
    return [
        f"source: {inspection.labeled} labeled images, {sizes.get('labeled', 'no size')} (height x width)",
        f"target: {inspection.unlabeled} unlabeled images, {sizes.get('unlabeled', 'no size')}; {inspection.val} "
        f"validation images, {sizes.get('val', 'no size')}; {len(data.classes)} classes",
    ]


def _sizes(smallest: tuple[int, int] | None, largest: tuple[int, int] | None) -> str:
    if smallest is None or largest is None:
        return "no size"
    small, large = ("x".join(map(str, size)) for size in (smallest, largest))
    return small if small == large else f"{small} to {large}"
