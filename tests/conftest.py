"""Fixtures of all tests: real images where the machine has them, and written ones everywhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# No test fetches weights: nobody listens there, and the local cache is an empty folder.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["HF_HUB_CACHE"] = str(Path(tempfile.gettempdir()) / "u2pl-tests-without-weights")

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets named by U2PL_TEST_DATA."""
    folder = os.environ.get("U2PL_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set U2PL_TEST_DATA to the folder of real data sets to run this test")
    return Path(folder)


@pytest.fixture(scope="session")
def write_image() -> Write:
    """``write_image(path, size=(H, W), seed=0)``: a smooth random RGB image."""

    def write(path: Path, size: tuple[int, int] = (12, 16), seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def write_mask() -> Write:
    """``write_mask(path, values, size=(H, W))``: a gray png holding the values in equal vertical stripes."""

    def write(path: Path, values: tuple[int, ...] = (0, 1), size: tuple[int, int] = (12, 16)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        stripes = np.array(values, dtype=np.uint8)[np.arange(size[1]) * len(values) // size[1]]
        Image.fromarray(np.broadcast_to(stripes, size).copy()).save(path)
        return path

    return write


@pytest.fixture
def write_folder(tmp_path: Path, write_image: Write, write_mask: Write) -> Callable[..., Path]:
    """``write_folder({"train/a": (0, 1), "train/b": None}, classes=("sky", "road"))``: images, and masks of values."""

    def write(contents: dict[str, tuple[int, ...] | None], classes: tuple[str, ...] = ("sky", "road", "car")) -> Path:
        root = tmp_path / "set"
        for seed, (stem, values) in enumerate(contents.items()):
            write_image(root / "images" / f"{stem}.png", seed=seed)
            if values is not None:
                write_mask(root / "masks" / f"{stem}.png", values)
        if classes:
            (root / "classes.txt").write_text("\n".join(classes))
        return root

    return write


@pytest.fixture(autouse=True)
def no_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of tests end without their report, which takes longer than they do. Tests of reports have it."""
    if "report" not in request.path.name:
        monkeypatch.setattr("u2pl.commands.train.report_training", lambda *_: None)
