"""The circle of the page on labelling: assess, train, suggest, correct, train on, evaluate. mIoU rises."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def photos(real_data: Path, tmp_path: Path) -> Path:
    """60 frames of CamVid, 8 of them labeled, and 20 others with masks to validate on."""
    camvid, root = real_data / "camvid", tmp_path / "photos"
    for kind in ("images", "masks"):
        (root / kind / "val").mkdir(parents=True)
    shutil.copy(camvid / "classes.txt", root / "classes.txt")
    train = sorted((camvid / "images" / "train").iterdir())[::6][:60]
    for number, path in enumerate(train):
        shutil.copy(path, root / "images" / path.name)
        if number % 7 == 0 and number < 56:
            shutil.copy(camvid / "masks" / "train" / f"{path.stem}.png", root / "masks" / f"{path.stem}.png")
    for path in sorted((camvid / "images" / "val").iterdir())[::5][:20]:
        shutil.copy(path, root / "images" / "val" / path.name)
        shutil.copy(camvid / "masks" / "val" / f"{path.stem}.png", root / "masks" / "val" / f"{path.stem}.png")
    return root


@pytest.mark.slow
def test_labels_that_are_suggested_raise_miou(u2pl: Command, photos: Path, real_data: Path, tmp_path: Path) -> None:
    keys = (
        *("folder", f"data.root={photos}", "data.scale=0.25", "network.encoder=mobilenet_v2", "network.channels=64"),
        *(f"network.weights={real_data / 'weights' / 'mobilenet_v2_imagenet.pt'}", "network.mean=[0.5,0.5,0.5]"),
        *("network.std=[0.5,0.5,0.5]", "network.embedding_dim=32", "train.crop_size=64", "train.batch_size=4"),
    )
    assessed = u2pl("assess", *keys, "train.steps=20", "--folds", "2", "--out", tmp_path / "assessed")
    assert assessed.code == 0, assessed.err
    assert "unlabeled images" in json.loads((tmp_path / "assessed" / "assessment.json").read_text())["sentence"]

    first = u2pl("train", *keys, "train.steps=150", "--out", tmp_path / "first")
    assert first.code == 0, first.err
    suggested = u2pl("suggest", tmp_path / "first", "--count", "12", "--out", tmp_path / "next")
    assert suggested.code == 0, suggested.err
    with (tmp_path / "next" / "suggested.csv").open(encoding="utf-8", newline="") as file:
        names = [Path(next(value for key, value in row.items() if "image" in key)).stem for row in csv.DictReader(file)]
    assert len(set(names)) == 12
    drafts = u2pl(
        "export-masks", tmp_path / "first", tmp_path / "next", "--format", "png", "--out", tmp_path / "drafts"
    )
    assert drafts.code == 0, drafts.err
    assert {path.stem for path in (tmp_path / "drafts").rglob("*.png")} == set(names)
    labeled = {path.stem for path in (photos / "masks").glob("*.png")}
    assert not labeled & set(names)
    for name in names:  # the person corrects the drafts
        shutil.copy(real_data / "camvid" / "masks" / "train" / f"{name}.png", photos / "masks" / f"{name}.png")

    second = u2pl("train", *keys[:2], "data.scale=0.25", "train.crop_size=64", "train.batch_size=4", "train.steps=150",
                  "--from", tmp_path / "first", "--out", tmp_path / "second")  # fmt: skip
    assert second.code == 0, second.err
    scores = [json.loads(u2pl("evaluate", tmp_path / name, "--json").out)["miou"] for name in ("first", "second")]
    assert scores[1] > scores[0] + 1
