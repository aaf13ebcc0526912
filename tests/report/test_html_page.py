"""The page of a report: hostile names stay text, nothing is fetched, and what is unknown is left out."""

from __future__ import annotations

import html
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

from u2pl.engine.bootstrap import Gain
from u2pl.errors import InputError
from u2pl.report.grid import Grid
from u2pl.report.html.charts import HEIGHT, WIDTH, Chart, Line
from u2pl.report.html.curves import curves
from u2pl.report.html.gallery import gallery
from u2pl.report.html.page import SIGNATURE, Page, Picture, RunRow, render

HOSTILE = ("<img src=x onerror=alert(1)>", "a \"quoted\" 'name'", "two\nlines\x1b[31m", "</script><b>")
PALETTE = ((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12))


class Tags(HTMLParser):
    """All tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def page(names: tuple[str, ...] = HOSTILE, **more: Any) -> Page:
    from test_html_gallery import shot

    iou = dict(zip(names, (10.0, 20.0, None, 40.0), strict=True))
    row = RunRow(names[0], names[1], miou=23.3, interval=(20.0, 26.0), images=9, iou=iou, gain=Gain(1.5, 0.5, 2.5, 9))
    shots = [replace(shot(seed), name=name) for seed, name in enumerate(names)]
    content: dict[str, Any] = {
        "runs": [row, replace(row, name=names[2], miou=None, interval=None, gain=None)],
        "gain": Gain(-1.5, -2.5, -0.5, 9),
        "gain_over": names[3],
        "classes": names,
        "palette": PALETTE,
        "other": names[2],
        "pictures": [Picture("data:image/png;base64,", names[0])],
        "charts": [Chart(names[0], [Line(names[1], [(1, 0.5), (2, 0.25)])], names[3])],
        "confusion": torch.tensor([[5, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 700]]),
        "calibration": Chart(names[0], [Line(names[1], [(0.5, 0.5)])], square=True),
        "choices": names,
        "gallery": gallery(shots, PALETTE),
        "notes": names,
        "table": Grid(names, (names,), names[0]),
    }
    return Page(names[0], row, **{**content, **more})


def test_names_are_text_wherever_they_stand() -> None:
    plain = Tags(render(page(("one", "two", "three", "four"))))
    text = render(page())
    hostile = Tags(text)
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in plain.found]
    assert [set(keys) for _, keys in hostile.found] == [set(keys) for _, keys in plain.found]
    assert html.escape(HOSTILE[0], quote=False) in text
    assert "\x1b" not in text
    assert "two\\nlines\\x1b[31m" in text


def test_the_page_fetches_nothing() -> None:
    for tag, attributes in Tags(render(page())).found:
        assert tag not in ("iframe", "object", "embed", "base")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "action", "srcset"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or value == "", (tag, value)
    text = render(page())
    assert "http:" not in text
    assert "https:" not in text
    assert "default-src 'none'" in text
    assert SIGNATURE in text[:1000]


def test_the_script_gets_the_names_as_they_are_printed() -> None:
    found = re.search(r'id="gallery-data">(.*?)</script>', render(page()), re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    assert data["classes"] == [HOSTILE[0], HOSTILE[1], "two\\nlines\\x1b[31m", HOSTILE[3]]
    assert sum(data["pixels"]) == sum(card["width"] * card["height"] for card in data["cards"])


def test_rows_of_the_confusion_are_shares_and_cells_tell_counts() -> None:
    text = render(page(("one", "two", "three", "four")))
    assert 'title="one predicted as two: 1 of 6 pixels">17</td>' in text
    assert 'title="two predicted as one: 0 of 0 pixels">-</td>' in text
    assert "four predicted as four: 700 of 700 pixels" in text


def test_of_few_groups_there_is_no_interval() -> None:
    names = ("one", "two", "three", "four")
    shown = page(names)
    few, gain = replace(shown.run, interval=None, groups=4), Gain(1.5, None, None, 9, 4)
    text = render(replace(shown, run=few, runs=[replace(few, gain=gain)], gain=replace(gain, groups=1)))
    assert text.count("no interval: 4 groups of images are too few") == 1
    assert text.count("no interval: one group of images is too few") == 1
    assert "(4 groups of images are too few)" in text
    some = render(replace(shown, run=replace(shown.run, groups=12)))
    assert "95 % interval 20.0 to 26.0, over 12 groups of images" in some
    assert "95 % interval -2.5 to -0.5: harm" in some


def test_what_is_unknown_is_left_out() -> None:
    text = render(Page("bare", RunRow("bare", "about")))
    ids = {attributes["id"] for _, attributes in Tags(text).found if "id" in attributes}
    assert ids == {"result", "result-title"}
    assert "no validation images" in text


def test_each_id_is_given_once() -> None:
    ids = [attributes["id"] for _, attributes in Tags(render(page())).found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_missing_template_engine_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"Jinja2.*pip install 'u2pl\[report\]'"):
        render(page())


def test_a_chart_places_its_points_inside_its_frame() -> None:
    chart = Chart("t", [Line("a", [(0, 1.0), (50, 3.0), (100, 2.0)]), Line("b", [(step, 0.5) for step in range(1000)])])
    left, top, right, bottom = chart.frame()
    (first, points, marks), (_, many, few) = chart.paths()
    places = [tuple(map(float, place.split(","))) for place in points.split()]
    assert first == "a"
    assert places[0][0] == left
    assert places[1][1] < places[2][1] < places[0][1]  # up is less in a drawing
    assert all(left <= x <= right and top <= y <= bottom for x, y in [*places, *marks])
    assert len(many.split()) <= 300
    assert len(few) <= 8
    assert right < WIDTH
    assert bottom < HEIGHT
    for (place, text), low, high in (
        (tick, *ends)
        for ticks, ends in zip(chart.ticks(), ((left, right), (top, bottom)), strict=True)
        for tick in ticks
    ):
        assert low <= place <= high
        assert text


@pytest.mark.parametrize("points", [[(5, 0.0)], [(5, -2.0)], [(1, 3.0), (2, 3.0)], [(0, 0.0), (9, 0.0)]])
def test_a_chart_of_one_value_can_be_drawn(points: list[tuple[float, float]]) -> None:
    chart = Chart("t", [Line("a", points)])
    _, top, _, bottom = chart.frame()
    assert all(top <= y <= bottom for _, y in chart.paths()[0][2])
    assert chart.ticks()[1]


def test_curves_take_what_the_lines_have() -> None:
    lines = [
        {"step": 1, "loss/supervised": 2.0, "lr": 1.0},
        {"step": 2, "loss/supervised": 1.0, "loss/unsupervised": None},
        {"step": 2, "student/miou": 30.0, "reliable/share": 0.8, "reliable/accuracy": None, "reliable/gamma": 0.7},
    ]
    charts = {chart.title: chart for chart in curves(lines, [(1, 0.2), (2, 0.0)])}
    assert list(charts) == [
        "losses",
        "validation mIoU",
        "share of unreliable pixels alpha_t",
        "pseudo-labels: reliable pixels",
        "pseudo-labels: entropy threshold gamma_t",
    ]
    assert [(line.label, list(line.points)) for line in charts["losses"].lines] == [
        ("supervised", [(1, 2.0), (2, 1.0)])
    ]
    assert [line.label for line in charts["pseudo-labels: reliable pixels"].lines] == ["share of all pixels"]
    assert curves([]) == []
