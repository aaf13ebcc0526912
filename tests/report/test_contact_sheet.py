"""A sheet shows every picture at its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from u2pl.report.contact_sheet import save_contact_sheet, thumbnail
from u2pl.report.pictures import overlay

PALETTE = ((10, 20, 30), (200, 100, 0))


@pytest.mark.parametrize(
    ("size", "small"), [((20, 30), (20, 30)), ((360, 480), (192, 256)), ((900, 100), (224, 25)), ((1, 3000), (1, 256))]
)
def test_a_thumbnail_fits(size: tuple[int, int], small: tuple[int, int]) -> None:
    image, mask = torch.full((3, *size), 90, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    mask[:, size[1] // 2 :] = 255
    picture = thumbnail(image, mask, PALETTE)
    assert picture.shape == (3, *small)
    expected = overlay(torch.full((3, 1, 2), 90, dtype=torch.uint8), torch.tensor([[0, 255]]).byte(), PALETTE)
    assert torch.equal(picture[:, 0, 0], expected[:, 0, 0])
    assert torch.equal(picture[:, -1, -1], expected[:, 0, 1])


@pytest.mark.parametrize("number", [1, 4, 5, 12])
def test_pictures_stand_in_rows_of_five(number: int, tmp_path: Path) -> None:
    pictures = [torch.full((3, 200 - n, 256 - n), 20 * n, dtype=torch.uint8) for n in range(number)]
    save_contact_sheet(
        tmp_path / "sheet", pictures, [f"{n}  a/long/name/{'x' * 300}\n\udcff.png" for n in range(number)]
    )
    with Image.open(tmp_path / "sheet") as file:
        assert file.format == "PNG"
        sheet = np.array(file)
    columns, rows = min(5, number), -(-number // 5)
    assert sheet.shape == (rows * 220 - 6, columns * 262 - 6, 3)
    for n in range(number):
        top, left = n // 5 * 220 + 14, n % 5 * 262
        assert (sheet[top : top + 200 - n, left : left + 256 - n] == 20 * n).all()
        assert sheet[top - 14 : top, left : left + 256].min() < 128  # a title
