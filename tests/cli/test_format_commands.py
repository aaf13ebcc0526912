"""`u2pl export-masks` and `u2pl import-masks` through the real entry point, with a trained network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from u2pl.predictor import Predictor

FORMATS = ("png", "colour-png", "coco", "cvat", "label-studio", "labelme", "supervisely", "voc")


@pytest.fixture
def images(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    for seed, name in enumerate(("a/x y.png", "a/Bäume.jpg", "b.png")):
        write_image(tmp_path / "in" / name, size=(40 + seed, 56), seed=seed)
    return tmp_path / "in"


@pytest.mark.parametrize("name", FORMATS)
def test_drafts_of_a_run_come_back_as_its_masks(
    u2pl: Callable[..., Any], run_folder: Path, images: Path, tmp_path: Path, name: str
) -> None:
    drafts, out = tmp_path / "drafts", tmp_path / "set"
    done = u2pl("export-masks", run_folder, images, "--format", name, "--out", drafts)
    assert (done.code, done.err, done.out) == (0, "", f"drafts of 3 images in {drafts}\n")
    classes = drafts / "classes.txt"
    done = u2pl("import-masks", drafts, "--format", name, "--out", out, "--images", images, "--classes", classes)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith(f"3 masks of 4 classes in {out / 'masks'}\n")
    predicted = tmp_path / "predicted"
    assert u2pl("predict", run_folder, images, "--out", predicted).code == 0
    for path in images.rglob("*.*"):
        mask = path.relative_to(images).with_suffix(".png")
        np.testing.assert_array_equal(Image.open(out / "masks" / mask), Image.open(predicted / mask))


def test_unsure_pixels_and_confidence_are_those_of_the_network(
    u2pl: Callable[..., Any], run_folder: Path, images: Path, tmp_path: Path
) -> None:
    predictor = Predictor.load(run_folder)
    paths = {path.relative_to(images).as_posix(): path for path in images.rglob("*.*")}
    predictions = {
        name: predictor(torch.from_numpy(predictor.reader.read(path)).permute(2, 0, 1)) for name, path in paths.items()
    }
    largest = {name: prediction.probability.amax(dim=0).numpy() for name, prediction in predictions.items()}
    least = float(np.median(np.concatenate([each.ravel() for each in largest.values()])))
    options = ("--format", "png", "--min-confidence", least, "--unsure", "class")
    assert u2pl("export-masks", run_folder, images, *options, "--out", tmp_path / "png").code == 0
    for name, prediction in predictions.items():
        found = np.array(Image.open((tmp_path / "png" / "masks" / name).with_suffix(".png")))
        clear = abs(largest[name] - least) > 1e-5
        np.testing.assert_array_equal((found == 4)[clear], (largest[name] < least)[clear])
        np.testing.assert_array_equal(found[found < 4], prediction.mask.numpy()[found < 4])
    options = ("--format", "label-studio", "--shapes", "rle", "--objects", "classes", "--out", tmp_path / "tool")
    assert u2pl("export-masks", run_folder, images, *options).code == 0
    tasks = json.loads((tmp_path / "tool" / "tasks.json").read_text())
    names = ["a/B%C3%A4ume.jpg", "a/x%20y.png", "b.png"]
    assert [task["data"]["image"] for task in tasks] == [f"/data/local-files/?d={name}" for name in names]
    for task, name in zip(tasks, ("a/Bäume.jpg", "a/x y.png", "b.png"), strict=True):
        assert task["predictions"][0]["score"] == pytest.approx(largest[name].mean(), abs=3e-3)
        labels = [each["value"]["brushlabels"][0] for each in task["predictions"][0]["result"]]
        assert len(labels) == len(set(labels))


def test_an_image_that_cannot_be_read_is_left_out(
    u2pl: Callable[..., Any], run_folder: Path, images: Path, tmp_path: Path
) -> None:
    (images / "broken.png").write_bytes(b"nothing")
    done = u2pl("export-masks", run_folder, images, "--format", "coco", "--out", tmp_path / "out")
    assert (done.code, done.out) == (1, f"drafts of 3 images in {tmp_path / 'out'}\n")
    assert re.fullmatch(r"u2pl: image \S+broken.png is no JPEG, .*\n", done.err)
    whole = json.loads((tmp_path / "out" / "annotations" / "instances_default.json").read_text())
    assert [image["file_name"] for image in whole["images"]] == ["a/Bäume.jpg", "a/x y.png", "b.png"]


def test_bad_command_lines_are_one_line_and_write_nothing(
    u2pl: Callable[..., Any], run_folder: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (images / "twin.png").write_bytes((images / "b.png").read_bytes())
    (images / "twin.jpg").write_bytes((images / "a" / "Bäume.jpg").read_bytes())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes((images / "b.png").read_bytes())
    good = tmp_path / "other"
    for arguments, message in (
        ((run_folder, tmp_path / "empty"), "holds no image"),
        ((run_folder, tmp_path / "nothing"), "is missing or no folder"),
        ((run_folder, images), "would get the same mask; rename one"),
        ((tmp_path / "empty", good), "last.safetensors is missing"),
        ((images / "b.png", good), "give a run folder|holds no trained network|is missing"),
        ((run_folder, good, "--shapes", "x"), "--shapes 'x'"),
        ((run_folder, good, "--objects", "x"), "--objects 'x': should be parts or classes"),
        ((run_folder, good, "--min-confidence", 1.5), "--min-confidence 1.5: should be at least 0"),
        ((run_folder, good, "--min-confidence", 0.5, "--background", "sky"), "add --unsure class"),
        ((run_folder, good, "--background", "sea"), "--background 'sea': the classes are sky, road"),
    ):
        done = u2pl("export-masks", *arguments, "--format", "coco", "--out", tmp_path / "out")
        assert (done.code, done.out) == (2, "")
        assert re.search(message, done.err), done.err
        assert done.err.count("\n") == 1
        assert not (tmp_path / "out").exists()
    done = u2pl("import-masks", tmp_path / "empty", "--format", "x", "--out", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert not (tmp_path / "out").exists()
