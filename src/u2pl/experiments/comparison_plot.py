"""The plot of a comparison: mIoU over the number of labeled images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from u2pl.experiments.records import Record, Summary, summary
from u2pl.experiments.trials import Trial
from u2pl.report.plot_style import GRAY, MIOU, figure_of, look_of, save, tidy, wrapped

WIDTH, HEIGHT = 8.0, 4.5  # inches
_DODGE = 0.012  # share of the axis between two lines, so that error bars do not overlap

Points = list[tuple[int, Summary]]  #: number of labeled images, ascending, and the result


def plot_comparison(path: Path, trials: Sequence[Trial], records: Mapping[Path, Record]) -> None:
    """A line per method with error bars of one standard deviation, or dots if there is one number of labels.

    A baseline is a dashed line across the plot.
    """
    names = dict.fromkeys(trial.name for trial in trials if not trial.baseline)
    lines = {name: _points([trial for trial in trials if trial.name == name], records) for name in names}
    baseline = [trial for trial in trials if trial.baseline]
    counts = sorted({trial.images for trial in trials if not trial.baseline})
    figure = figure_of(WIDTH, HEIGHT)
    axes = figure.subplots()
    tidy(axes)
    if len(counts) > 1:
        _draw_lines(axes, lines, counts)
    else:
        _draw_dots(axes, lines, counts[0])
    upper = summary(baseline, records)
    if upper is not None:
        _draw_baseline(axes, upper, f"{baseline[0].name} ({baseline[0].images})", across=len(counts) > 1)
    handles, labels = axes.get_legend_handles_labels()
    if upper is not None:  # as a plain line it comes before lines with error bars
        handles, labels = [*handles[1:], handles[0]], [*labels[1:], labels[0]]
    if handles:
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    save(figure, path)


def _points(trials: Sequence[Trial], records: Mapping[Path, Record]) -> Points:
    """One point per choice of labeled images. Two choices may have equally many images."""
    choices = {trial.labeled: trial.images for trial in sorted(trials, key=lambda trial: trial.images)}
    found = []
    for labeled, images in choices.items():
        point = summary([trial for trial in trials if trial.labeled == labeled], records)
        if point is not None:
            found.append((images, point))
    return found


def _draw_lines(axes: Axes, lines: Mapping[str, Points], counts: Sequence[int]) -> None:
    axes.set_xscale("log")
    for number, (name, points) in enumerate(lines.items()):
        shift = (counts[-1] / counts[0]) ** (_DODGE * (number - (len(lines) - 1) / 2))
        axes.errorbar(
            [images * shift for images, _ in points],
            [point.mean for _, point in points],
            yerr=[point.std or 0.0 for _, point in points] if _spread(points) else None,
            capsize=3,
            label=wrapped(name),
            **look_of(number),
        )
    axes.set_xticks(list(counts), labels=[str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlim(counts[0] / (counts[-1] / counts[0]) ** 0.06, counts[-1] * (counts[-1] / counts[0]) ** 0.06)
    axes.set_xlabel(f"labeled images (log scale){bars(lines.values())}")
    axes.set_ylabel(MIOU)


def _draw_dots(axes: Axes, lines: Mapping[str, Points], images: int) -> None:
    for number, points in enumerate(lines.values()):
        look = look_of(number)
        for _, point in points:
            dot(axes, point, number, color=look["color"], marker=look["marker"])
    axes.set_yticks(range(len(lines)), labels=[wrapped(name) for name in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    labeled = f"{images} labeled {'image' if images == 1 else 'images'}"
    axes.set_xlabel(f"{MIOU}, {labeled}{bars(lines.values())}")


def dot(axes: Axes, point: Summary, row: int, *, color: str, marker: str) -> None:
    """A summary in its own row: the mean, one standard deviation, and the single runs as faint dots."""
    axes.errorbar(point.mean, row, xerr=point.std, color=color, marker=marker, capsize=3, linestyle="none", zorder=3)
    if point.std is not None:
        axes.scatter(point.values, [row] * len(point.values), s=14, color=color, alpha=0.4, linewidths=0, zorder=2)


def _draw_baseline(axes: Axes, upper: Summary, name: str, *, across: bool) -> None:
    (line, band) = (axes.axhline, axes.axhspan) if across else (axes.axvline, axes.axvspan)
    line(upper.mean, color=GRAY, linestyle="--", linewidth=1.2, label=wrapped(name))
    if upper.std is not None:
        band(upper.mean - upper.std, upper.mean + upper.std, color=GRAY, alpha=0.15, linewidth=0)


def _spread(points: Points) -> bool:
    return any(point.std is not None for _, point in points)


def bars(lines: Iterable[Points]) -> str:
    """The part of an axis label that explains error bars; empty if there are none."""
    return "; bars: one standard deviation over seeds" if any(map(_spread, lines)) else ""
