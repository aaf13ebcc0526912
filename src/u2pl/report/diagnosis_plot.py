"""The plot of a diagnosed run: accuracy of pseudo-labels, contents of queues, gradients of losses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from u2pl.report.plot_style import figure_of, look_of, save, tidy, wrapped

WIDTH, HEIGHT = 11.0, 3.2  # inches, of a row of two panels

Line = Mapping[str, Any]  #: of ``metrics.jsonl``


class Panel(NamedTuple):
    """Shares over training, in percent."""

    title: str
    lines: Mapping[str, str]  #: label of each line, by the name of its metric


PANELS = (
    Panel(
        "pseudo-labels",
        {
            "reliable/share": "reliable: share",
            "reliable/accuracy": "reliable: right",
            "unreliable/accuracy": "unreliable: right",
            "agreement": "student and teacher agree",
        },
    ),
    Panel("memory bank and anchors", {"queue/purity": "keys: of another class", "anchors/accuracy": "anchors: right"}),
)


def plot_diagnosis(path: Path, metrics: Path, classes: Sequence[str]) -> None:
    """Plot the ``metrics.jsonl`` of a diagnosed run.

    Panels without data are left out. Which ones remain depends on the method. Gradients are always there.
    """
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    shares = (name.split("/") for line in lines for name in line if name.startswith("gradient/"))
    losses = {f"gradient/{loss}/share": loss for _, loss, _ in shares}
    panels = [
        *PANELS,
        Panel("gradient norm, by loss", losses),
        Panel("right reliable pixels, of a class", {f"reliable/recall/{name}": name for name in classes}),
    ]
    shown = [panel for panel in panels if any(_points(lines, name)[0] for name in panel.lines)]
    rows = -(-len(shown) // 2)
    figure = figure_of(WIDTH, rows * HEIGHT)
    grid = figure.subplots(rows, 2, squeeze=False).flat
    for number, axes in enumerate(grid):
        if number < len(shown):
            _draw(axes, shown[number], lines)
        else:
            axes.remove()
    save(figure, path)


def _draw(axes: Axes, panel: Panel, lines: Sequence[Line]) -> None:
    tidy(axes)
    for number, (name, label) in enumerate(panel.lines.items()):
        steps, values = _points(lines, name)
        if steps:
            axes.plot(steps, [100 * value for value in values], label=wrapped(label), **look_of(number))
    axes.set_title(panel.title, fontsize=10)
    axes.set_ylim(-3, 103)
    axes.set_xlabel("step")
    axes.set_ylabel("%")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)


def _points(lines: Sequence[Line], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric, where it is known."""
    known = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    return [step for step, _ in known], [value for _, value in known]
