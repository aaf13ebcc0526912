"""The command line called in this process, a small data set of files, and a run trained on it."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from u2pl.cli.app import main

CLASSES = ("sky", "road", "car", "tree")
#: What makes a training of seconds out of any configuration.
SMALL = (
    *("network.channels=16", "network.low_level_channels=8", "network.embedding_dim=8"),
    *("method.contrast.bank_size=64", "method.contrast.keys_per_step=16"),
    *("train.steps=3", "train.batch_size=2", "train.crop_size=64", "train.accelerator=cpu", "train.precision=fp32"),
)


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def u2pl() -> Command:
    """``u2pl("train", ...)``: the entry point, with what it printed and its exit code."""

    def run(*arguments: Any) -> Result:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "argv", ["u2pl", *map(str, arguments)]),
        ):
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
        return Result(code, out.getvalue(), err.getvalue())

    return run


def write_set(root: Path) -> Path:
    """Four labeled and three unlabeled training images, two for validation; palette and gray masks, two sizes."""
    random = np.random.default_rng(0)
    names = [*(f"train/{name}" for name in "abcd"), "val/v", "val/sub/w", *(f"train/more/{name}" for name in "efg")]
    for index, name in enumerate(names):
        height, width = (64, 80) if index % 2 else (72, 68)
        values = np.sort(random.integers(0, len(CLASSES), (height, width)), axis=1).astype(np.uint8)
        shades = np.array([(90, 140, 230), (80, 80, 80), (200, 30, 30), (20, 130, 40)])[values]
        image = Image.fromarray((shades + random.integers(0, 20, shades.shape)).astype(np.uint8))
        path = root / "images" / f"{name}.{'jpg' if index % 3 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        if "more" in name:
            continue
        values[:3] = 255
        mask = Image.fromarray(values)
        if index % 2:
            mask.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
        path = root / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask.save(path)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set; not to be written to."""
    return write_set(tmp_path_factory.mktemp("files") / "set")


@pytest.fixture
def own_files(tmp_path: Path) -> Path:
    """The data set, for a test to spoil."""
    return write_set(tmp_path / "set")


@pytest.fixture(scope="session")
def yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file for the data set, but for its root."""
    path = tmp_path_factory.mktemp("config") / "mine.yaml"
    path.write_text("data: {name: folder, val: val, workers: 0}\nmethod: {name: u2pl, schedule: {warmup: 0.3}}\n")
    return path


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    return SMALL


@pytest.fixture(scope="session")
def run_folder(u2pl: Command, files: Path, yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained at half scale on the data set; not to be written to."""
    out = tmp_path_factory.mktemp("runs") / "run"
    done = u2pl("train", yaml, f"data.root={files}", *SMALL, "data.scale=0.5", "train.log_every=1", "--out", out)
    assert (done.code, done.err) == (0, "")
    (out / "stdout.txt").write_text(done.out)
    return out
