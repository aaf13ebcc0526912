"""Weights of the released code through the command line: imported, predicted with, scored; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import u2pl as package
from released_network import network, save_checkpoint
from u2pl.data.readers.cityscapes import CLASSES as CITYSCAPES
from u2pl.data.readers.cityscapes import PALETTE as CITYSCAPES_PALETTE
from u2pl.data.readers.pascal_voc import CLASSES as PASCAL_VOC
from u2pl.engine.checkpoint import read_description

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes, as the data set of the other tests has."""
    options: dict[str, Any] = {"depth": 18, "classes": 4, "width": 8, "embedding": 6}
    path = tmp_path_factory.mktemp("released") / "ckpt_best.pth"
    return save_checkpoint(path, network(1, **options), network(2, **options))


@pytest.fixture(scope="module")
def imported(u2pl: Command, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file made of it, in a folder that was not there; not to be written to."""
    out = tmp_path_factory.mktemp("imported") / "new" / "released.safetensors"
    done = u2pl("import-weights", checkpoint, "--out", out, "--classes", 4)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"resnet18, 4 classes, further heads: embedding of 6, auxiliary; written to {out}\n"
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return out


def refuse(result: Any, *fragments: str) -> None:
    """One line on stderr with all fragments, exit code 2, nothing else."""
    assert (result.code, result.out) == (2, ""), result
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    for fragment in ("u2pl: ", *fragments):
        assert fragment in lines[0]


def test_load_network_gives_the_teacher_to_be_evaluated(checkpoint: Path, imported: Path) -> None:
    loaded = package.load_network(imported)
    assert not loaded.training
    state = torch.load(checkpoint, weights_only=False)["teacher_state"]
    kept = loaded.state_dict()
    torch.testing.assert_close(kept["projection.8.weight"], state["module.decoder.representation.8.weight"])
    torch.testing.assert_close(kept["encoder.conv1.3.weight"], state["module.encoder.conv1.3.weight"])
    output = loaded(torch.rand(1, 3, 40, 57))
    assert output.logits.shape == (1, 4, 40, 57)
    assert output.embedding.shape[1] == 6
    assert read_description(imported)["classes"] == ["class_0", "class_1", "class_2", "class_3"]


def test_the_student_and_another_stride(u2pl: Command, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "student.safetensors"
    out.write_text("an older file")
    done = u2pl("import-weights", checkpoint, "--out", out, "--network", "student", "--output-stride", 16)
    assert (done.code, done.err) == (0, "")
    state = torch.load(checkpoint, weights_only=False)["model_state"]
    kept = package.load_network(out).state_dict()
    torch.testing.assert_close(kept["classifier.8.weight"], state["module.decoder.classifier.8.weight"])
    assert read_description(out)["network"]["output_stride"] == 16
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize(("count", "names"), [(21, PASCAL_VOC), (19, CITYSCAPES)])
def test_classes_of_the_two_data_sets(u2pl: Command, tmp_path: Path, count: int, names: tuple[str, ...]) -> None:
    only = network(3, depth=18, classes=count, width=4, embedding=None, auxiliary=False)
    path, out = save_checkpoint(tmp_path / "ckpt.pth", only, None), tmp_path / "out.safetensors"
    done = u2pl("import-weights", path, "--out", out)
    assert done.out == f"resnet18, {count} classes, further heads: none; written to {out}\n"
    predictor = package.Predictor.from_file(out)
    assert predictor.classes == names
    assert predictor.palette[1] == ((128, 0, 0) if count == 21 else CITYSCAPES_PALETTE[1])
    assert package.load_network(out).projection is None
    assert read_description(out)["evaluation"]["protocol"] == ("auto" if count == 21 else "sliding")


def test_predict_and_evaluate_take_the_file(u2pl: Command, imported: Path, files: Path, tmp_path: Path) -> None:
    images, masks = files / "images" / "val", files / "masks" / "val"
    done = u2pl("predict", imported, images, "--out", tmp_path)
    assert (done.code, done.err) == (0, "")
    predictor, right, valid = package.Predictor.from_file(imported), 0, 0
    for stem in ("v", "sub/w"):
        image = np.array(Image.open(next(images.glob(f"{stem}.*"))).convert("RGB"))
        mask = np.array(Image.open(tmp_path / f"{stem}.png"))
        predicted = predictor(torch.from_numpy(image).permute(2, 0, 1)).mask.numpy()
        assert (mask == predicted).all()
        truth = np.array(Image.open(masks / f"{stem}.png"))
        right, valid = right + (predicted == truth)[truth != 255].sum(), valid + (truth != 255).sum()
    done = u2pl("evaluate", imported, "train.accelerator=cpu", "--images", images, "--masks", masks, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["pixel_accuracy"] == pytest.approx(100 * right / valid, abs=0.02)


def test_the_file_of_a_run_is_such_a_file_too(u2pl: Command, run_folder: Path, files: Path, tmp_path: Path) -> None:
    image = files / "images" / "train" / "a.png"
    for model, out in ((run_folder, tmp_path / "run"), (run_folder / "last.safetensors", tmp_path / "file")):
        assert u2pl("predict", model, image, "--out", out).code == 0
    assert (tmp_path / "run" / "a.png").read_bytes() == (tmp_path / "file" / "a.png").read_bytes()
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = package.Predictor.from_run(run_folder).network(pixels).logits
        assert torch.equal(package.load_network(run_folder / "last.safetensors")(pixels).logits, expected)


def test_what_is_refused(u2pl: Command, checkpoint: Path, tmp_path: Path) -> None:
    out, bad = tmp_path / "out.safetensors", tmp_path / "bad.pth"
    state = torch.load(checkpoint, weights_only=False)

    def attempt(*options: Any, path: Path = checkpoint) -> Any:
        return u2pl("import-weights", path, "--out", out, *options)

    refuse(attempt("--classes", 21), "--classes 21", str(checkpoint), "4 classes")
    refuse(attempt("--network", "both"), "--network both", "teacher or student")
    refuse(attempt("--output-stride", 4), "--output-stride 4", "8 or 16")
    refuse(attempt(path=tmp_path / "none.pth"), "none.pth is missing")
    refuse(attempt(path=tmp_path), f"{tmp_path} is a folder")
    bad.write_bytes(checkpoint.read_bytes()[:100_000])
    refuse(attempt(path=bad), "bad.pth is damaged or no checkpoint")
    bad.write_text("<html>quota exceeded</html>")
    refuse(attempt(path=bad), "bad.pth is damaged, or holds Python objects")
    del state["teacher_state"]["module.decoder.classifier.8.bias"]
    state["teacher_state"]["module.decoder.more"] = torch.zeros(2)
    torch.save(state, bad)
    refuse(attempt(path=bad), "bad.pth", "1 tensors missing (decoder.classifier.8.bias)", "1 unexpected (decoder.more)")
    assert [path.name for path in tmp_path.iterdir()] == [bad.name]


def test_an_out_that_cannot_be_written(u2pl: Command, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.safetensors").mkdir()
    for name, why in (
        ("file/out.safetensors", "cannot write there"),
        ("folder.safetensors", "should be a file"),
        ("out.pth", "ends in .safetensors"),
    ):
        refuse(u2pl("import-weights", checkpoint, "--out", tmp_path / name), f"--out {tmp_path / name}", why)
    assert {path.name for path in tmp_path.rglob("*")} == {"file", "folder.safetensors"}


def test_files_that_hold_no_network(u2pl: Command, imported: Path, files: Path, tmp_path: Path) -> None:
    image, bad = files / "images" / "train" / "a.png", tmp_path / "bad.safetensors"
    arguments = (image, "--out", tmp_path / "masks")
    refuse(u2pl("predict", tmp_path / "none.safetensors", *arguments), "none.safetensors is missing")
    refuse(u2pl("predict", imported, *arguments, "--weights", "best"), "--weights best", "leave --weights out")
    bad.write_bytes(imported.read_bytes()[:-1000])
    refuse(u2pl("predict", bad, *arguments), str(bad))
    bad.write_text("weights")
    refuse(u2pl("predict", bad, *arguments), str(bad), "import-weights")
    refuse(u2pl("evaluate", bad), str(bad))
    folder = ("data.name=folder", f"data.root={files}", "data.val=val")
    refuse(u2pl("evaluate", imported, *folder), "data: its classes (sky, road, car, tree)")
    assert not (tmp_path / "masks").exists()
