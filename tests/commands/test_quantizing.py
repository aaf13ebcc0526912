"""Files of 8 bits: both files are scored on the same images, and one that cannot be scored is not kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from u2pl.build import build_source
from u2pl.commands import quantizing
from u2pl.commands.export import _some_images
from u2pl.commands.quantizing import quantized
from u2pl.config.overrides import load_config
from u2pl.data.source import DataSource
from u2pl.errors import InputError

CLASSES = ("sky", "road", "car")


@pytest.fixture
def data(write_folder: Callable[..., Path]) -> DataSource:
    root = write_folder({"train/a": (0, 1), "train/b": (1, 2), "val/c": (0, 1), "val/d": (0, 2), "val/e": (0, 0)})
    return build_source(load_config("folder", [f"data.root={root}", "data.val=val"]).data, seed=0)


@pytest.fixture(autouse=True)
def formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that need no onnx: the float one is all sky, the one of 8 bits all road."""

    def quantize(path: Path, target: Path, samples: object) -> None:
        target.write_bytes(b"int8")

    def load(path: Path, name: str) -> Callable[[Tensor], Tensor]:
        chosen = int(path.read_bytes() == b"int8")
        return lambda image: torch.nn.functional.one_hot(
            torch.full((1, *image.shape[-2:]), chosen), num_classes=3
        ).movedim(-1, 1)

    monkeypatch.setattr(quantizing, "_quantize", quantize)
    monkeypatch.setattr(quantizing, "load", load)


def test_both_files_are_scored_and_the_description_has_it(data: DataSource, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"float")
    out = tmp_path / "m.int8.onnx"
    found = quantized(tmp_path / "m.onnx", out, data, CLASSES, {"format": "onnx"})
    sky, road = 4, 1  # halves of the three masks: sky is right in 4 of 6, road in 1 of 6
    assert found.float_miou == pytest.approx(100 * (sky / 6) / 3)
    assert found.miou == pytest.approx(100 * (road / 6) / 3)
    assert (found.images, found.path, found.megabytes) == (3, out, 4e-6)
    assert json.loads((tmp_path / "m.int8.onnx.json").read_text()) == {
        "format": "onnx",
        "quantized": "int8",
        "validation_miou": {"float": 22.22, "int8": 5.56, "images": 3},
    }


def test_a_file_that_cannot_be_scored_is_not_kept(data: DataSource, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"float")
    next((tmp_path / "set").rglob("images/val/d.png")).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"d\.png"):
        quantized(tmp_path / "m.onnx", tmp_path / "m.int8.onnx", data, CLASSES, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "set"]


def test_an_unreadable_image_is_left_out_of_a_check(data: DataSource, tmp_path: Path) -> None:
    assert len(_some_images(data)) == 3
    next((tmp_path / "set").rglob("images/val/c.png")).write_bytes(b"no image")
    assert len(_some_images(data)) == 2
