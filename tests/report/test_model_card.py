"""The model card: names of any kind stay text."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml

from u2pl.engine.bootstrap import Gain
from u2pl.printable import printable
from u2pl.report.model_card import ModelCard, escaped

CARD = ModelCard(
    repository="me/streets",
    weights="last",
    tags=("semantic-segmentation", "u2pl"),
    facts=[("method", "u2pl")],
    counts={"labeled": 20, "validation": 8},
    iou={"sky": 90.04, "car": None},
    miou=45.6,
    interval=(40.0, 51.0),
    gain=Gain(2.0, 0.5, 3.0, 8),
    files=["config.yaml", "last.safetensors"],
    removed=["data.root"],
)


def test_what_a_card_says() -> None:
    text = CARD.markdown()
    assert "mIoU 45.6 % on 8 validation images; 95 % interval 40.0 to 51.0 (bootstrap over these images).\n" in text
    assert "+2.0 mIoU since its warm-up on labels only; 95 % interval +0.5 to +3.0.\n" in text
    assert "| 0 | sky | 90.0 |\n| 1 | car | - |\n" in text
    assert "Not in the validation images, so without a score: car.\n" in text
    assert "- `last.safetensors`: the weights at the end of training\n" in text
    assert "- `config.yaml` is without paths: `data.root`\n" in text
    assert "The interval covers" in text
    assert "best weights" not in text
    assert "a little too high" in replace(CARD, weights="best").markdown()


def test_images_that_are_alike_are_drawn_together() -> None:
    text = replace(CARD, groups=6).markdown()
    assert "95 % interval 40.0 to 51.0 (bootstrap over 6 groups of these images).\n" in text
    few = replace(CARD, groups=3, interval=None, gain=Gain(2.0, None, None, 8, 3)).markdown()
    assert "mIoU 45.6 % on 8 validation images.\n" in few
    assert "+2.0 mIoU since its warm-up on labels only; no interval: too few groups of images.\n" in few
    assert "The interval covers" not in few


def test_without_validation_images_there_is_no_score() -> None:
    text = replace(CARD, miou=None, interval=None, gain=None).markdown()
    assert "how good this model is was not measured" in text
    assert "mIoU" not in text
    assert "interval" not in text


@pytest.mark.parametrize(
    "name",
    [
        "a|b", "a\n---\nlicense: stolen", "<script>alert(1)</script>", "[here](javascript:alert)", "![x](http://x.y/z)",
        "*b*", "`c`", "www.x.com", "# head", "&lt;", "\x1b[31m", "a\\", "\u2028", "\u202ex",
    ],
)  # fmt: skip
def test_names_of_any_kind_stay_text(name: str) -> None:
    text = replace(CARD, iou={name: 1.0, "car": None}).markdown()
    row = next(line for line in text.split("\n") if line.endswith("| 1.0 |"))
    cell = row.removeprefix("| 0 | ").removesuffix(" | 1.0 |")
    assert re.fullmatch(r"(?:\\[!-/:-@\[-`{-~]|[^!-/:-@\[-`{-~])*", cell)  # all that could format has its backslash
    assert cell.isprintable()
    plain = replace(CARD, iou={"name": 1.0, "car": None}).markdown()
    assert text.replace(row, "") == plain.replace("| 0 | name | 1.0 |", "")
    assert "".join(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell)) == printable(name)


def test_the_front_is_yaml_whatever_the_tags() -> None:
    tags = ("x: y", "- z", "---", "a\nlicense: mit")
    front = re.split(r"^---$", replace(CARD, tags=tags).markdown(), flags=re.MULTILINE)[1]
    assert yaml.safe_load(front) == {"library_name": "u2pl", "pipeline_tag": "image-segmentation", "tags": [*tags]}


def test_letters_of_any_language_stay() -> None:
    assert escaped("Straße 道路 2") == "Straße 道路 2"
    assert escaped("a_b") == r"a\_b"
