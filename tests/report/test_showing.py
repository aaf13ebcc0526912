"""`u2pl.show`: the same picture from every kind of input, its legend, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import u2pl
from u2pl.errors import InputError
from u2pl.report.pictures import colour_table, overlay

CLASSES = ("sky", "road", "<img onerror=x>")
PALETTE = ((10, 20, 30), (200, 100, 50), (0, 255, 0))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mask() -> torch.Tensor:
    values = torch.tensor([0, 1, 255], dtype=torch.uint8)
    return values[torch.randint(0, 3, (30, 40), generator=torch.Generator().manual_seed(1))]


def pixels(picture: Image.Image) -> np.ndarray:
    return np.array(picture)


def test_all_kinds_of_input_give_the_same_picture(image: torch.Tensor, mask: torch.Tensor, tmp_path: Path) -> None:
    array = image.permute(1, 2, 0).numpy()
    Image.fromarray(array).save(tmp_path / "i.png")
    Image.fromarray(mask.numpy()).save(tmp_path / "m.png")
    expected = pixels(u2pl.show(image, mask, classes=CLASSES, palette=PALETTE))
    tinted = overlay(image, mask, PALETTE).permute(1, 2, 0).numpy()
    assert (expected[:30] == tinted).all()
    assert expected.shape[0] > 30
    for one, other in (
        (array, mask.numpy()),
        (Image.fromarray(array), Image.fromarray(mask.numpy())),
        (tmp_path / "i.png", str(tmp_path / "m.png")),
        (image, mask.long()),
    ):
        assert (pixels(u2pl.show(one, other, classes=CLASSES, palette=PALETTE)) == expected).all()


def test_the_legend_has_the_classes_that_are_shown(image: torch.Tensor, mask: torch.Tensor) -> None:
    colours = {
        tuple(row) for row in pixels(u2pl.show(image, mask, classes=CLASSES, palette=PALETTE))[30:].reshape(-1, 3)
    }
    table = colour_table(PALETTE)
    assert tuple(table[0]) in colours
    assert tuple(table[1]) in colours
    assert tuple(table[2]) not in colours
    wide = u2pl.show(
        torch.zeros(3, 4, 60, dtype=torch.uint8),
        (torch.arange(240) % 12).reshape(4, 60),
        classes=[f"class {n}" for n in range(12)],
    )
    assert wide.height > 4 + 6 * 20  # more lines than one


def test_without_a_mask_or_with_ignored_pixels_only(image: torch.Tensor) -> None:
    assert (pixels(u2pl.show(image)) == image.permute(1, 2, 0).numpy()).all()
    assert u2pl.show(image, torch.full((30, 40), 255)).size == (40, 30)


@pytest.mark.parametrize(
    ("size", "value", "dtype", "says"),
    [
        ((29, 40), 0, torch.uint8, r"the mask is \(29, 40\), the image \(30, 40\)"),
        ((30, 40), 3, torch.uint8, "the mask holds 3, but there are 3 classes"),
        ((30, 40), -1, torch.long, "class indices up to 255"),
        ((30, 40), 0.5, torch.float32, "class indices up to 255"),
        ((1, 30, 40), 0, torch.uint8, "class indices up to 255"),
    ],
)
def test_what_is_no_mask(
    image: torch.Tensor, size: tuple[int, ...], value: float, dtype: torch.dtype, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        u2pl.show(image, torch.full(size, value, dtype=dtype), classes=CLASSES)


def test_what_is_no_image() -> None:
    with pytest.raises(InputError, match="the image is"):
        u2pl.show(torch.rand(3, 4, 5))
