"""The plot of an ablation: one panel per axis and one row per value, with the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from u2pl.experiments.comparison_plot import bars, dot
from u2pl.experiments.records import Record, summary
from u2pl.experiments.trials import Setting
from u2pl.report.plot_style import COLOURS, GRAY, MIOU, figure_of, save, tidy, wrapped

WIDTH = 7.0  # inches
_ROW, _PANEL, _FRAME = 0.32, 0.45, 0.9  # inches per row, added per panel, and of the rest


def height_of(settings: Sequence[Setting]) -> float:
    """Height of the plot in inches. It grows with the number of settings."""
    panels = _panels(settings)
    return round(_FRAME + _PANEL * len(panels) + _ROW * sum(map(len, panels.values())), 2)


def plot_ablation(path: Path, settings: Sequence[Setting], records: Mapping[Path, Record]) -> None:
    """Dots with error bars of one standard deviation. A dashed line is the reference, the first setting."""
    panels = _panels(settings)
    figure = figure_of(WIDTH, height_of(settings))
    ratios = [_PANEL + _ROW * len(rows) for rows in panels.values()]
    grid = figure.subplots(len(panels), squeeze=False, sharex=True, height_ratios=ratios)[:, 0]
    reference = summary(settings[0].trials, records)
    for axes, (axis, rows) in zip(grid, panels.items(), strict=True):
        tidy(axes)
        if reference is not None:
            axes.axvline(reference.mean, color=GRAY, linestyle="--", linewidth=1.2, zorder=1)
        for row, setting in enumerate(rows):
            point = summary(setting.trials, records)
            if point is not None:
                dot(axes, point, row, color=COLOURS[0], marker="o")
        axes.set_yticks(range(len(rows)), labels=[wrapped(setting.value) for setting in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_title(wrapped(axis, 60), loc="left", fontsize=10)
    points = (summary(setting.trials, records) for setting in settings)
    told = bars([(0, point)] for point in points if point is not None)
    grid[-1].set_xlabel(f"{MIOU}; dashed: the reference{told}")
    save(figure, path)


def _panels(settings: Sequence[Setting]) -> dict[str, list[Setting]]:
    """The settings of each axis, without the reference."""
    panels: dict[str, list[Setting]] = {}
    for setting in settings[1:]:
        panels.setdefault(setting.axis, []).append(setting)
    return panels
