"""Names in plots, in Markdown and above pictures."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from u2pl.report.grid import Grid
from u2pl.report.pictures import save_panels
from u2pl.report.plot_style import drawable, figure_of, save, wrapped

NAMES = (
    "$a$",
    "_hidden",
    "$\\frac{",
    "100 %",
    "道路 🚗",
    "\x1b[31m\n",
    "\udcff",
    "x" * 3000,
    "a b " * 900,
    "",
    "{0}",
    "\\$",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_drawn_as_it_is_without_a_warning(name: str, tmp_path: Path) -> None:
    figure = figure_of(8, 4)
    axes = figure.subplots()
    axes.plot([0, 1], label=wrapped(name))
    axes.plot([1, 0], label="other")
    axes.set_title(wrapped(name, 60))
    axes.set_yticks([0, 1], labels=[wrapped(name), "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        legend = axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        save(figure, tmp_path / "plot.png")
    assert len(legend.get_texts()) == (2 if name else 1)
    with Image.open(tmp_path / "plot.png") as image:
        assert image.size == (1200, 600)


def test_signs_of_formulas_and_missing_characters_are_escaped() -> None:
    assert drawable("a_b 100 %") == "a_b 100 %"
    assert drawable("_$a$ \x07") == r" _\$a\$ \x07"
    assert drawable("é 🚗") == r"é \U0001f697"


def test_long_names_take_three_lines() -> None:
    assert wrapped("short") == "short"
    lines = wrapped("x" * 3000, 20).split("\n")
    assert list(map(len, lines)) == [20, 20, 20]
    assert lines[-1].endswith("...")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", r"a\|b"),
        ("`x` *y* <b> ~z~ $w$", r"\`x\` \*y\* \<b> \~z\~ \$w\$"),
        ("one\ntwo", r"one\\ntwo"),
        ("_x_ train.scale_range=[1,1]", r"\_x\_ train.scale_range=[1,1]"),
        ("[a](b) [c]", r"[a\](b) [c]"),
        ("&lt; R&D", r"\&lt; R&D"),
        ("\udcff\x1b", r"\\xff\\x1b"),
    ],
)
def test_markdown_shows_the_name(name: str, shown: str) -> None:
    text = Grid((name, "mIoU"), ((name, "1.0"),), "note").markdown()
    assert text == f"| {shown} | mIoU |\n| --- | ---: |\n| {shown} | 1.0 |\n\nnote\n"


@pytest.mark.parametrize("title", ["[void]", "道路 🚗", "\x1b\n\udcff", "x" * 3000, ""])
def test_titles_of_panels_stay_above_their_column(title: str, tmp_path: Path) -> None:
    image = torch.zeros(3, 20, 60, dtype=torch.uint8)
    save_panels(tmp_path / "with.png", [[image, image]], (title, "b"))
    save_panels(tmp_path / "without.png", [[image, image]], ("", "b"))
    with Image.open(tmp_path / "with.png") as with_title, Image.open(tmp_path / "without.png") as without:
        second = (62, 0, *with_title.size)
        assert with_title.crop(second).tobytes() == without.crop(second).tobytes()
