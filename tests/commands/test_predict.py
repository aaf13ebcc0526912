"""Prediction of many files: threads read, segment and write, and nobody notices but the clock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from u2pl.build.trained import network_of
from u2pl.commands import predict, segmenting
from u2pl.commands.predict import predict_files
from u2pl.data.files import FileSample
from u2pl.engine.checkpoint import save_weights
from u2pl.errors import InputError
from u2pl.predictor import Predictor
from u2pl.report.pictures import overlay

DESCRIPTION = {
    "classes": ["sky", "road", "car"],
    "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
    "scale": 1.0,
    "method": "supervised",
    "network": {"encoder": "resnet18", "channels": 8, "low_level_channels": 8},
}
SIZES = [(40, 56), (64, 48), (40, 56), (33, 71)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = network_of(DESCRIPTION)
    classifier: Any = network.classifier
    nn.init.normal_(classifier[-1].weight, std=3.0)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_weights(path, network, DESCRIPTION)
    return path


@pytest.fixture
def images(tmp_path: Path, write_image: Callable[..., Path]) -> list[Path]:
    return [write_image(tmp_path / "in" / f"{n:02}.png", size=SIZES[n % 4], seed=n) for n in range(12)]


@pytest.fixture(params=[1, 3])
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def run(weights: Path, images: list[Path], out: Path, **options: Any) -> predict.Predicted:
    return predict_files(weights, images, out, console=Console(file=StringIO()), device="cpu", **options)


def test_files_are_those_of_one_image_after_the_other(
    weights: Path, images: list[Path], tmp_path: Path, cores: int
) -> None:
    out, predictor = tmp_path / "out", Predictor.load(weights)
    done = run(weights, images, out)
    assert (done.written, done.failed) == (12, [])
    assert sorted(path.name for path in out.iterdir()) == sorted(
        name for image in images for name in (f"{image.stem}.png", f"{image.stem}_overlay.jpg")
    )
    seen = set()
    for path in images:
        image = FileSample("", path, None, 3).image()
        mask = predictor.mask(image)
        with Image.open(out / f"{path.stem}.png") as file:
            assert np.array_equal(np.array(file), mask.numpy())
        with Image.open(out / f"{path.stem}_overlay.jpg") as file:
            picture = overlay(image, mask, predictor.palette).permute(1, 2, 0)
            assert np.abs(np.array(file).astype(float) - picture.numpy()).mean() < 60  # of noise, as a jpg
        seen |= set(mask.unique().tolist())
    assert len(seen) > 1


def test_unreadable_images_are_listed_in_their_order(
    weights: Path, images: list[Path], tmp_path: Path, cores: int
) -> None:
    for number in (0, 5, 6, 11):
        images[number].write_bytes(images[number].read_bytes()[:60])
    done = run(weights, images, tmp_path / "out")
    assert done.written == 8
    assert [Path(line.split(" ")[1]).name for line in done.failed] == ["00.png", "05.png", "06.png", "11.png"]
    assert not (tmp_path / "out" / "05.png").exists()


def test_the_bar_reaches_the_number_of_images(weights: Path, images: list[Path], tmp_path: Path) -> None:
    images[3].write_bytes(b"no image")
    shown = StringIO()
    predict_files(
        weights, images, tmp_path / "out", console=Console(file=shown, force_terminal=True, width=90), device="cpu"
    )
    assert "12/12" in shown.getvalue()


def test_no_memory_is_one_line_that_names_the_image(
    weights: Path, images: list[Path], tmp_path: Path, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def scores(self: Predictor, segment: Any, some: list[torch.Tensor]) -> torch.Tensor:
        if some[0].shape[-1] == 71:
            tried.append(threading.get_ident())
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(self, segment, some)

    real = Predictor._scores
    monkeypatch.setattr(Predictor, "_scores", scores)
    with pytest.raises(InputError, match=r"out of memory with .*03\.png: set evaluation\.protocol=sliding"):
        run(weights, images, tmp_path / "out")
    assert tried[-1] == threading.get_ident()  # alone, at last
    assert (tmp_path / "out" / "02.png").exists()


def test_an_error_of_writing_is_one_line_and_leaves_no_thread(
    weights: Path, images: list[Path], tmp_path: Path, cores: int
) -> None:
    out, before = tmp_path / "out", threading.active_count()
    (out / "07.png").mkdir(parents=True)
    with pytest.raises(InputError, match=r"07\.png"):
        run(weights, images, out, overwrite=True)
    assert threading.active_count() == before
    assert not list(out.rglob("*.partial"))


def test_few_images_are_in_memory(
    weights: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read, and not written: no more pixels than the bounds of reading and writing, and the images in work."""
    monkeypatch.setattr(segmenting, "_PIXELS", 64 * 71)
    lock, held, most = threading.Lock(), 0, 0
    read, write = FileSample.image, predict._write

    def reading(self: FileSample) -> torch.Tensor:
        nonlocal held, most
        image = read(self)
        with lock:
            held += 1
            most = max(most, held)
        return image

    def writing(*arguments: Any) -> None:
        nonlocal held
        time.sleep(0.05)
        write(*arguments)
        with lock:
            held -= 1

    monkeypatch.setattr(FileSample, "image", reading)
    monkeypatch.setattr(predict, "_write", writing)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run(weights, images, tmp_path / "out").written == 12
    finally:
        torch.set_num_threads(before)
    assert most <= 2 + 1 + 2 + 1  # two fit each bound; one is in work, and one waits for its place


SCRIPT = """
import sys, time
from u2pl.commands import predict
write = predict.write_atomically
def slow(path, make):
    def half(partial):
        partial.write_bytes(b"half")
        time.sleep(0.2)
        make(partial)
    write(path, half)
predict.write_atomically = slow
from u2pl.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("cores", ["1", "2"])
def test_ctrl_c_leaves_whole_files_and_no_process(
    weights: Path, images: list[Path], tmp_path: Path, cores: str
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "predict", weights, tmp_path / "in", "--out", out],
        env={**os.environ, "OMP_NUM_THREADS": cores},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 120
        while not list(out.glob("*.jpg")) and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in told
    assert not list(out.rglob("*.partial"))
    for path in out.iterdir():
        with Image.open(path) as file:
            file.load()
    assert 0 < len(list(out.glob("*.jpg"))) < 12
