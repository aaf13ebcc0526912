"""A trained network leaves u2pl, from the command line."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from u2pl.predictor import Predictor

Command = Callable[..., Any]
EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_predict.py"


@pytest.fixture(scope="module")
def trained(
    u2pl: Command, files: Path, yaml: Path, small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run with a small encoder."""
    out = tmp_path_factory.mktemp("exported") / "run"
    keys = (*small, f"data.root={files}", "network.encoder=resnet18", "method.name=supervised")
    assert u2pl("train", yaml, *keys, "--out", out).code == 0
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy for a test to change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def refuse(result: Any, *fragments: str) -> None:
    """One line on stderr with all fragments, and exit code 2."""
    assert result.code == 2, result
    assert len(result.err.splitlines()) == 1, result.err
    for fragment in ("u2pl: ", *fragments):
        assert fragment in result.err


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_pt2(u2pl: Command, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "model.pt2"
    done = u2pl("export", run, "--format", "pt2", "--out", out)
    assert (done.code, done.err) == (0, "")
    assert "100.00 %" in done.out
    assert "checked on 7 images" in done.out  # five random ones, and two of the validation set
    assert names(out.parent) == {"model.pt2", "model.pt2.json"}
    said = json.loads((tmp_path / "new" / "model.pt2.json").read_text())
    assert said["classes"] == ["sky", "road", "car", "tree"]
    assert said["inside"]["scale"] == 1.0
    assert said["torch"] == torch.__version__
    image = torch.randint(0, 256, (3, 53, 71), dtype=torch.uint8)
    scores = torch.export.load(out).module()(image[None].float().div(255))
    assert torch.equal(scores[0].argmax(dim=0).to(torch.uint8), Predictor.from_run(run).mask(image))


@pytest.mark.slow
def test_onnx_needs_no_u2pl(u2pl: Command, run_folder: Path, files: Path, tmp_path: Path) -> None:
    """The example segments as `u2pl predict`, at the half scale of the run; and also with 8 bits."""
    run = Path(shutil.copytree(run_folder, tmp_path / "run"))
    done = u2pl("export", run, "--int8")
    assert (done.code, done.err) == (0, "")
    assert "mIoU on 2 validation images: float " in done.out
    assert {"last.onnx", "last.onnx.json", "last.int8.onnx", "last.int8.onnx.json"} <= names(run)
    assert not [name for name in names(run) if "partial" in name]
    told = json.loads((run / "last.int8.onnx.json").read_text())
    scores = told.pop("validation_miou")
    assert (
        f"on {scores['images']} validation images: float {scores['float']:.1f}, int8 {scores['int8']:.1f}" in done.out
    )
    assert told == {**json.loads((run / "last.onnx.json").read_text()), "quantized": "int8"}
    assert (run / "last.int8.onnx").stat().st_size < 0.5 * (run / "last.onnx").stat().st_size
    assert u2pl("predict", run, files / "images" / "val", "--out", tmp_path / "masks").code == 0
    spec = importlib.util.spec_from_file_location("onnx_predict", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    for image in (files / "images" / "val").rglob("*.*"):
        expected = tmp_path / "masks" / image.relative_to(files / "images" / "val").with_suffix(".png")
        example.main(str(run / "last.onnx"), str(image), str(tmp_path / "mask.png"))
        found = Image.open(tmp_path / "mask.png")
        assert found.mode == "P"
        assert (np.array(found) == np.array(Image.open(expected))).mean() >= 0.999
    example.main(str(run / "last.int8.onnx"), str(image), str(tmp_path / "mask.png"))


def test_a_wrong_file_is_not_kept(u2pl: Command, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from u2pl.commands import export

    monkeypatch.setattr(export, "load", lambda path, name: lambda image: torch.zeros(len(image), 4, *image.shape[-2:]))
    before = names(run)
    refuse(u2pl("export", run, "--format", "pt2"), "differs from the network", "nothing is written")
    assert names(run) == before


def test_bad_input(u2pl: Command, run: Path, tmp_path: Path) -> None:
    before = names(run)
    refuse(u2pl("export", run, "--format", "tflite"), "--format tflite: should be onnx or pt2")
    refuse(u2pl("export", run, "--format", "pt2", "--int8"), "--int8: is for --format onnx")
    refuse(u2pl("export", run, "--format", "pt2", "--out", run / "model.onnx"), "should be a file that ends in .pt2")
    (tmp_path / "mine.pt2").write_text("mine")
    refuse(u2pl("export", run, "--format", "pt2", "--out", tmp_path / "mine.pt2"), "did not write it")
    refuse(u2pl("export", run, "--format", "pt2", "--out", tmp_path / "mine.pt2" / "x.pt2"), "is a file")
    refuse(u2pl("export", tmp_path / "none", "--format", "pt2"), "is no run folder")
    refuse(u2pl("export", run, "--format", "pt2", "--weights", "worst"), "--weights worst")
    assert names(run) == before
    (run / "last.safetensors").write_bytes(b"damaged")
    refuse(u2pl("export", run, "--format", "pt2"), "last.safetensors")


def test_an_unfinished_run(u2pl: Command, run: Path) -> None:
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("steps: 3", "steps: 9"))
    refuse(u2pl("export", run, "--format", "pt2"), "is not finished: 3 of 9 steps")


@pytest.mark.slow
def test_without_the_data(u2pl: Command, run: Path) -> None:
    path = run / "config.yaml"
    lines = [
        line if not line.strip().startswith("root:") else "  root: /nowhere" for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(lines))
    refuse(u2pl("export", run, "--int8"), "--int8: needs the images")
    done = u2pl("export", run, "--format", "pt2")
    assert done.code == 0
    assert "checked on 5 images" in done.out
