"""Train, evaluate, predict and check on files, as a user would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.models import resnet18

from u2pl.config.overrides import load_config
from u2pl.config.preset_files import preset_names
from u2pl.engine.checkpoint import read_description
from u2pl.predictor import Predictor

Command = Callable[..., Any]
CLASSES = ["sky", "road", "car", "tree"]


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "command", [(), ("train",), ("evaluate",), ("predict",), ("distill",), ("check",), ("presets",), ("demo",)], ids=str
)
def test_help(u2pl: Command, command: tuple[str, ...]) -> None:
    shown = u2pl(*command, "--help")
    assert shown.code == 0
    assert "Usage: " in shown.out
    assert "--help" in shown.out
    assert shown.err == ""


def test_presets_are_listed_and_printed(u2pl: Command) -> None:
    listed = u2pl("presets")
    assert listed.code == 0
    for name in preset_names():
        assert name in listed.out
        printed = u2pl("presets", name)
        assert printed.code == 0
        assert "method:" in printed.out
        assert load_config(name).method.name


def test_a_printed_preset_is_a_configuration(u2pl: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(u2pl("presets", "scenes").out)
    assert load_config(tmp_path / "mine.yaml") == load_config("scenes")


def test_a_run_folder_holds_what_it_should(run_folder: Path, files: Path, yaml: Path, small: tuple[str, ...]) -> None:
    names = {path.name for path in run_folder.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "best.safetensors", "last.safetensors", "last.ckpt"} <= names
    assert any("tfevents" in name for name in names)
    with Image.open(run_folder / "pictures" / "validation.png") as picture:
        assert picture.width > picture.height / 2  # three columns
    assert not any("partial" in name for name in names)
    resolved = load_config(run_folder / "config.yaml")
    assert resolved == load_config(yaml, [f"data.root={files}", *small, "data.scale=0.5", "train.log_every=1"])
    losses = [line for line in metrics(run_folder) if "lr" in line]
    assert [line["step"] for line in losses] == [1, 2, 3]
    description = read_description(run_folder / "last.safetensors")
    assert (description["classes"], description["scale"]) == (CLASSES, 0.5)


def test_training_tells_what_it_does(run_folder: Path) -> None:
    text = " ".join((run_folder / "stdout.txt").read_text().split())
    assert "u2pl on folder: 4 labeled, 3 unlabeled, 2 validation images, 4 classes" in text
    assert "validation, IoU %" in text


def test_precision_is_resolved(u2pl: Command, run_folder: Path) -> None:
    assert load_config(run_folder / "config.yaml").train.precision == "fp32"


def test_evaluate_prints_the_score_of_training_as_json(u2pl: Command, run_folder: Path) -> None:
    shown = u2pl("evaluate", run_folder, "--json")
    assert (shown.code, shown.err) == (0, "")
    scores = json.loads(shown.out)
    assert shown.out.count("\n") == 1
    assert list(scores) == ["miou", "iou", "pixel_accuracy"]
    assert list(scores["iou"]) == CLASSES
    last = next(line for line in reversed(metrics(run_folder)) if "teacher/miou" in line)
    assert scores["miou"] == last["teacher/miou"]
    assert scores["pixel_accuracy"] == last["teacher/pixel_accuracy"]
    assert scores["iou"] == {name: last[f"teacher/iou/{name}"] for name in CLASSES}


def test_evaluate_on_folders_is_the_same_as_on_the_same_files_of_the_run(
    u2pl: Command, run_folder: Path, files: Path
) -> None:
    folders = ("--images", files / "images" / "val", "--masks", files / "masks" / "val")
    shown = u2pl("evaluate", run_folder, *folders, "--json")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == u2pl("evaluate", run_folder, "--json").out


def test_evaluate_prints_a_table(u2pl: Command, run_folder: Path) -> None:
    shown = u2pl("evaluate", run_folder, "--weights", "best")
    assert shown.code == 0
    for word in (*CLASSES, "mIoU", "pixel accuracy"):
        assert word in shown.out


def test_evaluate_takes_overrides(u2pl: Command, run_folder: Path, own_files: Path) -> None:
    (own_files / "images" / "val" / "v.jpg").unlink()
    shown = u2pl("evaluate", run_folder, f"data.root={own_files}", "--json")
    assert shown.code == 0
    assert shown.out != u2pl("evaluate", run_folder, "--json").out


def test_evaluating_leaves_gradients_on(u2pl: Command, run_folder: Path) -> None:
    u2pl("evaluate", run_folder, "--json")
    assert torch.is_grad_enabled()


def test_predict_writes_masks_and_overlays_in_place(
    u2pl: Command, run_folder: Path, files: Path, tmp_path: Path
) -> None:
    single = tmp_path / "single.PNG"
    Image.open(files / "images" / "train" / "a.png").save(single)
    out = tmp_path / "new" / "out"
    shown = u2pl("predict", run_folder, files / "images", single, "--out", out)
    assert (shown.code, shown.err) == (0, "")
    images = [path for path in (files / "images").rglob("*") if path.is_file()]
    assert f"{len(images) + 1} masks" in shown.out
    predictor = Predictor.from_run(run_folder)
    for path in [*images, single]:
        stem = path.relative_to(files / "images").with_suffix("") if path != single else Path("single")
        with Image.open(path) as image, Image.open(out / f"{stem}.png") as mask:
            assert mask.mode == "P"
            assert mask.size == image.size
            values = np.array(mask)
            assert values.max() < len(CLASSES)
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
            assert np.array_equal(values, predictor(pixels).mask.numpy())
            assert mask.getpalette()[: 3 * len(CLASSES)] == [c for colour in predictor.palette for c in colour]
        with Image.open(out / f"{stem}_overlay.jpg") as picture:
            assert picture.size == image.size
    assert len([path for path in out.rglob("*") if path.is_file()]) == 2 * (len(images) + 1)


def test_predict_respects_the_scale_of_the_run(run_folder: Path) -> None:
    predictor = Predictor.from_run(run_folder)
    assert predictor.scale == 0.5
    seen: list[torch.Size] = []
    predictor.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    prediction = predictor(torch.zeros(3, 64, 80, dtype=torch.uint8))
    assert seen == [(1, 3, 32, 40)]
    assert prediction.mask.shape == (64, 80)
    assert prediction.probability.shape == (4, 64, 80)


def test_check_tells_what_is_there(u2pl: Command, files: Path, yaml: Path) -> None:
    shown = u2pl("check", yaml, f"data.root={files}")
    assert (shown.code, shown.err) == (0, "")
    size = "of 72x68 to 64x80"
    told = f"images (height x width): 4 labeled {size}, 3 unlabeled {size}, 2 validation {size}\n"
    assert told in shown.out
    assert "ready to train" in shown.out


def test_check_tells_what_a_frozen_encoder_leaves_to_train(
    u2pl: Command, files: Path, yaml: Path, tmp_path: Path
) -> None:
    shown = u2pl("check", yaml, f"data.root={files}", "network.freeze=true")
    assert (shown.code, shown.err) == (0, "")
    assert "warning: network.freeze: the encoder has random weights" in shown.out
    whole = re.search(r"network\.freeze: (\S+) M parameters, (\S+) M of them train\n", shown.out)
    assert whole is not None
    encoder = sum(each.numel() for name, each in resnet18().named_parameters() if not name.startswith("fc."))
    assert float(whole[1]) - float(whole[2]) == pytest.approx(encoder / 1e6, abs=0.11)
    torch.save(resnet18().state_dict(), tmp_path / "weights.pt")
    shown = u2pl("check", yaml, f"data.root={files}", "network.freeze=1", f"network.weights={tmp_path}/weights.pt")
    assert "random weights" not in shown.out
    assert "M of them train" in shown.out
    assert "network.freeze" not in u2pl("check", yaml, f"data.root={files}").out


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("9", "network.freeze: the encoder has 5 stages, not 9; give 1 to 5, or true for all of it"),
        (
            "some",
            "unable to parse string as an integer, or true or false, not 'some'",
        ),
        ("-1", "network.freeze: should be greater than or equal to 1, or true or false, not -1"),
    ],
)
def test_check_refuses_to_freeze_what_is_not_there(
    u2pl: Command, files: Path, yaml: Path, value: str, told: str
) -> None:
    shown = u2pl("check", yaml, f"data.root={files}", f"network.freeze={value}")
    assert shown.code == 2
    assert shown.err.splitlines()[0].endswith(told)


def test_check_lists_every_error(u2pl: Command, own_files: Path, yaml: Path) -> None:
    (own_files / "images" / "train" / "a.png").write_bytes(b"not a picture")
    Image.new("L", (5, 5)).save(own_files / "masks" / "train" / "b.png")
    shown = u2pl("check", yaml, f"data.root={own_files}")
    assert shown.code == 2
    assert "a.png is no JPEG" in shown.out
    assert "b.png is 5x5" in shown.out
    assert "fix these errors before you train" in shown.out
    assert "ready to train" not in shown.out


def test_supervised_training_on_a_preset(u2pl: Command, small: tuple[str, ...], tmp_path: Path) -> None:
    scenes = ("data.train=4", "data.val=1", "data.height=64", "data.width=64", "data.labeled=4", "data.workers=0")
    shown = u2pl("train", "scenes", *scenes, *small, "train.steps=2", "method.name=supervised", "--out", tmp_path / "r")
    assert (shown.code, shown.err) == (0, "")
    assert "student" in shown.out
    assert "teacher" not in shown.out


def test_the_installed_command_says_nothing_on_stderr(small: tuple[str, ...], tmp_path: Path) -> None:
    """Libraries like to tell of precision, processes and deprecations there."""
    command = [Path(sys.executable).with_name("u2pl"), "train", "scenes", *small, "train.precision=bf16"]
    scenes = ["data.train=4", "data.val=1", "data.height=64", "data.width=64", "data.labeled=2", "data.workers=1"]
    done = subprocess.run(
        [*command, *scenes, "train.steps=1", "method.name=supervised", "--out", tmp_path / "run"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "weights, metrics and curves in" in done.stdout


def test_default_folder_is_named_after_the_configuration(
    u2pl: Command, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    class StopError(Exception):
        pass

    def train(config: Any, out: Path, **options: Any) -> Tensor:
        made.append(out)
        raise StopError

    monkeypatch.setattr("u2pl.commands.train.train", train)
    with pytest.raises(StopError):
        u2pl("train", "scenes", "seed=3", "method.name=mean_teacher")
    assert made == [Path("runs/scenes-mean_teacher-3")]
