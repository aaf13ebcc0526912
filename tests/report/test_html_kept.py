"""Pictures that a run keeps for later reports; and how large a report of many real images is."""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_html_gallery import shot

from u2pl.errors import InputError
from u2pl.report.html.gallery import gallery, preview
from u2pl.report.html.kept import IMAGES, KEPT, keep, kept
from u2pl.report.html.measuring import BINS, Calibration, Measured, Shot
from u2pl.report.html.page import Page, Picture, RunRow, render


def measured(shots: list[Shot], classes: int = 4) -> Measured:
    counts = torch.arange(BINS)
    calibration = Calibration(counts + 1, counts, 0.5 * (counts + 1).double())
    return Measured(shots, torch.arange(classes**2).reshape(classes, classes), calibration, (), len(shots))


def test_what_is_kept_is_what_was_shown(tmp_path: Path) -> None:
    before = measured([shot(seed) for seed in range(5)])
    keep(tmp_path / KEPT, before)
    after = kept(tmp_path / KEPT, 4)
    for one, two in zip(before.shots, after.shots, strict=True):
        assert (one.name, one.score) == (two.name, two.score)
        assert np.array_equal(one.truth, two.truth)
        assert np.array_equal(one.mask, two.mask)
        assert np.abs(one.entropy - two.entropy).max() <= math.log(4) / 510 + 1e-6
        assert two.image.shape == one.image.shape
    assert torch.equal(after.confusion, before.confusion)
    assert after.calibration.points() == before.calibration.points()
    assert after.images == 5


def test_of_many_some_are_kept_from_the_worst_to_the_best(tmp_path: Path) -> None:
    keep(tmp_path / KEPT, measured([shot(seed, 6, 8) for seed in range(100)]))
    found = kept(tmp_path / KEPT, 4)
    numbers = [int(each.name.removeprefix("image ")) for each in found.shots]
    assert len(numbers) == IMAGES
    assert (numbers[0], numbers[-1]) == (0, 99)
    assert set(np.diff(numbers).tolist()) == {9}
    assert found.images == 100


def test_the_file_is_small_even_for_noise(tmp_path: Path) -> None:
    keep(tmp_path / KEPT, measured([shot(seed, 240, 320) for seed in range(IMAGES)]))
    assert (tmp_path / KEPT).stat().st_size < 310_000
    assert min(max(each.truth.shape) for each in kept(tmp_path / KEPT, 4).shots) >= 48


def test_without_predictions_nothing_is_kept(tmp_path: Path) -> None:
    keep(tmp_path / KEPT, measured([]))
    assert not list(tmp_path.iterdir())


def spoil(path: Path, how: str) -> None:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    told = json.loads(files["gallery.json"])
    if how == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return
    if how == "no list":
        del files["gallery.json"]
    elif how == "no picture":
        del files["1/mask.png"]
    elif how == "no png":
        files["1/mask.png"] = b"no picture"
    else:
        told[how] = None
        files["gallery.json"] = json.dumps(told).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "how", ["half", "no list", "no picture", "no png", "shots", "confusion", "pixels", "confidence", "images"]
)
def test_a_damaged_file_is_one_line(tmp_path: Path, how: str) -> None:
    keep(tmp_path / KEPT, measured([shot(0), shot(1)]))
    spoil(tmp_path / KEPT, how)
    with pytest.raises(InputError, match=r"gallery\.zip is damaged; remove it"):
        kept(tmp_path / KEPT, 4)


def test_pictures_of_other_classes_or_none_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        kept(tmp_path / KEPT, 4)
    keep(tmp_path / KEPT, measured([shot(0)]))
    with pytest.raises(InputError, match="is damaged"):
        kept(tmp_path / KEPT, 5)


def real_shots(real: Path, number: int) -> list[Shot]:
    """Validation images of two data sets with their masks; entropies are noise, which no format makes smaller."""
    drawn, shots = np.random.default_rng(0), []
    for name in ("camvid", "idd_lite"):
        paths = sorted((real / name / "images" / "val").glob("*.jpg"))[: number // 2]
        for path in paths:
            image = np.array(Image.open(path).convert("RGB"))
            mask = np.array(Image.open(real / name / "masks" / "val" / f"{path.stem}.png"))
            noise = drawn.random(mask.shape, dtype=np.float32)
            shots.append(Shot(path.stem, 50.0, image, mask, mask[::-1].copy(), noise).resized(320))
    return shots


@pytest.mark.slow
def test_a_report_of_two_hundred_real_images_is_below_20_megabytes(real_data: Path) -> None:
    shots = real_shots(real_data, 200)
    assert len(shots) == 200
    palette = tuple((10 * index, 200 - 9 * index, 40) for index in range(11))
    page = Page("Report of x", RunRow("x", "about x"), classes=[f"class {index}" for index in range(11)])
    pictures = [Picture(preview(each, palette), "a picture") for each in shots[:3]]
    text = render(replace(page, palette=palette, pictures=pictures, gallery=gallery(shots, palette), gallery_of="All."))
    assert text.count('class="open"') == 200
    print(f"{len(text.encode()) / 1e6:.1f} MB")
    assert len(text.encode()) < 20_000_000
