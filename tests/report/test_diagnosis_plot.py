"""The plot of a diagnosed run: what is measured is drawn, what is not is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from u2pl.report import diagnosis_plot
from u2pl.report.diagnosis_plot import plot_diagnosis

LINES: list[dict[str, Any]] = [
    {"step": 10, "loss/supervised": 1.0},
    {"step": 20, "gradient/supervised/share": 1.0, "gradient/supervised/norm": 2.0},
    {
        "step": 40,
        "gradient/supervised/share": 0.6,
        "gradient/unsupervised/share": 0.4,
        "reliable/share": 0.8,
        "reliable/accuracy": 0.9,
        "unreliable/accuracy": None,
        "reliable/recall/cat": 0.25,
        "reliable/recall/dog": None,
    },
]


def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Points of each line of each panel that there is."""
    figures: list[Figure] = []
    saving = diagnosis_plot.save
    monkeypatch.setattr(diagnosis_plot, "save", lambda figure, path: (figures.append(figure), saving(figure, path)))
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    plot_diagnosis(tmp_path / "diagnosis.png", metrics, ("cat", "dog"))
    with Image.open(tmp_path / "diagnosis.png") as picture:
        assert picture.format == "PNG"
    return {
        axes.get_title(): {
            str(line.get_label()): [*zip(line.get_xdata(), line.get_ydata(), strict=True)]  # type: ignore[arg-type]
            for line in axes.get_lines()
        }
        for axes in figures[0].axes
    }


def test_shares_are_drawn_in_percent_where_they_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert drawn(monkeypatch, tmp_path, LINES) == {
        "pseudo-labels": {"reliable: share": [(40, 80.0)], "reliable: right": [(40, 90.0)]},
        "gradient norm, by loss": {"supervised": [(20, 100.0), (40, 60.0)], "unsupervised": [(40, 40.0)]},
        "right reliable pixels, of a class": {"cat": [(40, 25.0)]},
    }


def test_a_run_without_a_teacher_has_gradients_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [*drawn(monkeypatch, tmp_path, LINES[:2])] == ["gradient norm, by loss"]
