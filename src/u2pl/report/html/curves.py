"""The curves of a run, from the lines of its ``metrics.jsonl``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from u2pl.report.html.charts import Chart, Line, Point

#: Title, unit, and label of each line by the name of its metric.
_CHARTS = (
    ("validation mIoU", "%", {"student/miou": "student", "teacher/miou": "teacher"}),
    (
        "pseudo-labels: reliable pixels",
        "share",
        {"reliable/share": "share of all pixels", "reliable/accuracy": "right, of the reliable ones"},
    ),
    ("pseudo-labels: entropy threshold gamma_t", "nats", {"reliable/gamma": "gamma_t"}),
    ("memory bank: keys in the queue of a class", "keys", {"queue/fill": "mean over the classes"}),
)
_LOSS = "loss/"


def curves(lines: Sequence[Mapping[str, Any]], alphas: Sequence[Point] = ()) -> list[Chart]:
    """The charts for which there are numbers.

    Args:
        alphas: step and share of unreliable pixels (alpha_t), for a method with this partition.
    """
    names = dict.fromkeys(name for line in lines for name in line if name.startswith(_LOSS))
    losses = Chart("losses", _known(lines, {name: name.removeprefix(_LOSS) for name in names}), "unweighted")
    charts = [losses, *(Chart(title, _known(lines, named), unit) for title, unit, named in _CHARTS)]
    if alphas:
        charts.insert(2, Chart("share of unreliable pixels alpha_t", (Line("alpha_t", alphas),), "share"))
    return [chart for chart in charts if chart.lines]


def _known(lines: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> tuple[Line, ...]:
    """A line for each metric that has a value. Numbers that are not finite have no place in a chart."""
    found = []
    for name, label in names.items():
        known = [(line["step"], float(line[name])) for line in lines if line.get(name) is not None]
        points = [point for point in known if math.isfinite(point[1])]
        if points:
            found.append(Line(label, points))
    return tuple(found)
