"""The picture of an assessment: the gain of each class, and mIoU over the number of labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from u2pl.report.plot_style import COLOURS, GRAY, figure_of, save, tidy, wrapped

if TYPE_CHECKING:
    from u2pl.experiments.assessment import Assessment

_WIDTH, _ROW, _LEAST = 9.0, 0.28, 3.5  # inches


def plot_assessment(path: Path, result: Assessment) -> None:
    """Left: points that unlabeled images add to each class. Right: labels, and what more would add."""
    figure = figure_of(_WIDTH, max(_LEAST, 1.2 + _ROW * (len(result.by_class) + 1)))
    gains, curve = figure.subplots(1, 2, width_ratios=(3, 2))
    _gains(gains, result)
    _curve(curve, result)
    save(figure, path)


def _gains(axes: Axes, result: Assessment) -> None:
    rows = [("mIoU", result.gain), *((name, each[2]) for name, each in result.by_class.items())][::-1]
    places = range(len(rows))
    tidy(axes)
    axes.axvline(0, color=GRAY, linewidth=1)
    for place, (_, found) in zip(places, rows, strict=True):
        color = COLOURS[0] if found.helps else COLOURS[1] if found.harms else GRAY
        if found.low is not None and found.high is not None:
            axes.plot((found.low, found.high), (place, place), linewidth=2, color=color)
        axes.plot(found.points, place, marker="o" if found.helps else "s", color=color)
    axes.set_yticks(places, [wrapped(name) for name, _ in rows])
    interval = "too few groups for an interval" if result.gain.low is None else "95 % interval"
    axes.set_xlabel(f"points that unlabeled images add, {interval}")


def _curve(axes: Axes, result: Assessment) -> None:
    tidy(axes)
    count = result.labeled
    axes.set_xscale("log", base=2)
    axes.plot((count / 2, count), (result.half, result.supervised), color=COLOURS[0], marker="o", label="labels alone")
    axes.plot(
        (count, 2 * count),
        (result.supervised, result.supervised + result.doubled),
        color=COLOURS[0],
        linestyle=":",
        label="labels alone, if the line goes on",
    )
    axes.plot(count, result.semi, color=COLOURS[1], marker="s", linestyle="", label=wrapped(result.method))
    ticks = [count / 2, count, 2 * count]
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("labeled images")
    axes.set_ylabel("mIoU of all folds (%)")
    axes.legend(frameon=False, fontsize=8)
