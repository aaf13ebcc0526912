"""A student on the pseudo-masks of a finished run, from the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spread_runs import masks_in, spread_run

from u2pl.build import build_source
from u2pl.config.overrides import load_saved
from u2pl.engine.checkpoint import read_description
from u2pl.predictor import Predictor

Command = Callable[..., Any]
NAMES = [f"train/more/{name}" for name in "efg"]
FAST = ("--scales", "1", "--no-flip")


def pseudo_masks(out: Path) -> dict[str, np.ndarray]:
    return masks_in(out / "pseudo_masks")


@pytest.fixture(scope="module")
def teacher(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose weights differ enough between classes that views of an image disagree; not to be written to."""
    return spread_run(run_folder, tmp_path_factory.mktemp("teachers") / "run", std=3.0)


@pytest.fixture(scope="module")
def distilled(u2pl: Command, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A student with a smaller decoder, and what the command printed; not to be written to."""
    out = tmp_path_factory.mktemp("students") / "student"
    done = u2pl("distill", teacher, "network.channels=8", "train.log_every=1", "--out", out)
    assert (done.code, done.err) == (0, "")
    return out, done


def test_pseudo_masks_are_those_of_the_predictor(distilled: tuple[Path, Any], teacher: Path) -> None:
    """Of the same settings, on the images as training reads them."""
    keys = ["evaluation.scales=[0.75, 1.0, 1.25]", "evaluation.flip=true"]
    predictor = Predictor.from_run(teacher, overrides=keys)
    assert predictor.scale == 0.5
    predictor.scale = 1.0
    found = pseudo_masks(distilled[0])
    config = load_saved(teacher / "config.yaml")
    samples = build_source(config.data, seed=config.seed).unlabeled
    assert list(found) == sorted(sample.name for sample in samples) == NAMES
    for sample in samples:
        image = sample.image()
        assert found[sample.name].shape == tuple(image.shape[-2:])
        assert np.array_equal(found[sample.name], predictor.mask(image).numpy())
        assert np.array_equal(found[sample.name], predictor(image).probability.argmax(dim=0).numpy())
        assert len(np.unique(found[sample.name])) > 1


def test_the_configuration_says_where_the_labels_are_from(distilled: tuple[Path, Any], teacher: Path) -> None:
    out, _ = distilled
    student, teacher = (dict(load_saved(folder / "config.yaml").model_dump()) for folder in (out, teacher))
    changed = {(section, key) for section in teacher if isinstance(teacher[section], dict) for key in teacher[section]
               if teacher[section][key] != student[section][key]}  # fmt: skip
    assert changed == {("method", "name"), ("data", "pseudo_masks"), ("network", "channels")}
    assert student["method"]["name"] == "supervised"
    assert student["data"]["pseudo_masks"] == str(out / "pseudo_masks")


def test_the_table_compares_the_models(u2pl: Command, distilled: tuple[Path, Any], teacher: Path) -> None:
    out, done = distilled
    assert "4 labeled, 3 pseudo-labeled, 3 unlabeled, 2 validation images" in done.out
    rows = dict(re.findall(r"^(teacher|student) +deeplabv3plus resnet18 +([\d.]+) +[\d.]+ M$", done.out, re.MULTILINE))
    for name, folder in (("teacher", teacher), ("student", out)):
        scored = json.loads(u2pl("evaluate", folder, "--json").out)
        assert rows[name] == f"{scored['miou']:.1f}"
    sizes = [float(size) for size in re.findall(r"([\d.]+) M$", done.out, re.MULTILINE)]
    assert sizes[0] > sizes[1]


def test_the_student_is_a_normal_run(u2pl: Command, distilled: tuple[Path, Any], files: Path, tmp_path: Path) -> None:
    out = tmp_path / "moved"
    shutil.copytree(distilled[0], out)
    shutil.rmtree(out / "pseudo_masks")  # neither needs them
    scored = u2pl("evaluate", out, f"data.pseudo_masks={out / 'pseudo_masks'}")
    assert (scored.code, scored.err) == (0, "")
    done = u2pl("predict", out, files / "images" / "val", "--out", tmp_path / "predicted")
    assert (done.code, done.err) == (0, "")
    assert read_description(out / "last.safetensors")["network"]["channels"] == 8


def test_train_understands_the_configuration(u2pl: Command, distilled: tuple[Path, Any], tmp_path: Path) -> None:
    """The same weights: a distillation is a training with one key more."""
    out, _ = distilled
    done = u2pl("train", out / "config.yaml", "--out", tmp_path / "again")
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "again" / "last.safetensors").read_bytes() == (out / "last.safetensors").read_bytes()
    assert u2pl("train", out / "config.yaml", "--out", out, "--resume").code == 0
    done = u2pl("check", out / "config.yaml")
    assert (done.code, done.err) == (0, "")
    shutil.copytree(out, tmp_path / "spoilt")
    (tmp_path / "spoilt/pseudo_masks/train/more/f.png").unlink()
    key = f"data.pseudo_masks={tmp_path / 'spoilt/pseudo_masks'}"
    done = u2pl("train", out / "config.yaml", key, "--out", tmp_path / "other")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "has no mask of 1 image (train/more/f)" in done.err
    assert not (tmp_path / "other").exists()


def test_the_command_again_only_scores(u2pl: Command, distilled: tuple[Path, Any], teacher: Path) -> None:
    out, first = distilled
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*.png") if "ps" in str(path)}
    weights = (out / "last.safetensors").read_bytes()
    done = u2pl("distill", teacher, "network.channels=8", "train.log_every=1", "--out", out)
    assert (done.code, done.err) == (0, "")
    assert "3 of 3 images have their pseudo-masks already" in done.out
    assert done.out.split("validation\n")[-1] == first.out.split("validation\n")[-1]
    assert (out / "last.safetensors").read_bytes() == weights
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before if "pseudo_masks" in str(path)}
    assert after == {path: before[path] for path in after}
    assert len(after) == 3


def test_a_confidence_leaves_pixels_out(u2pl: Command, teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    predictor = Predictor.from_run(teacher)
    predictor.scale = 1.0
    config = load_saved(teacher / "config.yaml")
    samples = build_source(config.data, seed=config.seed).unlabeled
    predictions = {sample.name: predictor(sample.image()) for sample in samples}
    confidence = torch.cat([each.probability.max(dim=0).values.flatten() for each in predictions.values()])
    least = round(float(confidence.median()), 4)
    done = u2pl("distill", teacher, "train.steps=1", *FAST, "--min-confidence", least, "--out", out)
    assert (done.code, done.err) == (0, "")
    found = pseudo_masks(out)
    for name, prediction in predictions.items():
        most, label = prediction.probability.max(dim=0)
        clear = (most - least).abs() > 1e-4  # the probabilities of a pixel may be rounded otherwise
        expected = label.masked_fill(most < least, 255).numpy()
        assert np.array_equal(found[name][clear.numpy()], expected[clear.numpy()])
    ignored = np.concatenate([mask.ravel() for mask in found.values()]) == 255
    assert 0.4 < ignored.mean() < 0.6


ENDED = """
import os, signal, sys, threading
what, number, at = sys.argv.pop(1), int(sys.argv.pop(1)), int(sys.argv.pop(1))
from u2pl.commands import pseudo_masks
from u2pl.report.progress import ProgressBar
lock, save, step, written = threading.Lock(), pseudo_masks.save_mask, ProgressBar.step, []
def saving(path, **given):
    with lock:  # in threads
        written.append(path)
        if what == "mask" and len(written) == at:
            path.write_bytes(b"half")
            os.kill(os.getpid(), number)
        save(path, **given)
def stepping(self, done, losses):
    step(self, done, losses)
    if what == "step" and done == at:
        os.kill(os.getpid(), number)
pseudo_masks.save_mask, ProgressBar.step = saving, stepping
from u2pl.cli import main
main()
"""


def distilled_until(
    run: Path, out: Path, what: str, at: int, *keys: str, number: int = signal.SIGKILL
) -> subprocess.CompletedProcess[str]:
    """A process of its own that gets a signal while it writes a mask, or after a step."""
    command = [sys.executable, "-c", ENDED, what, int(number), at, "distill", run, *FAST, *keys, "--out", out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_after_kills_while_labelling_and_training_the_student_is_the_same(
    u2pl: Command, teacher: Path, tmp_path: Path
) -> None:
    keys = ("train.steps=5", "train.save_every=2", "train.log_every=1")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = distilled_until(teacher, whole, "", 0, *keys)
    assert (done.returncode, done.stderr) == (0, "")
    assert distilled_until(teacher, parts, "mask", 3, *keys).returncode == -signal.SIGKILL
    some = pseudo_masks(parts)
    assert len(some) < 3
    assert not (parts / "config.yaml").exists()
    written = {name: (parts / "pseudo_masks" / f"{name}.png").stat().st_mtime_ns for name in some}
    assert distilled_until(teacher, parts, "step", 3, *keys).returncode == -signal.SIGKILL
    assert written == {name: (parts / "pseudo_masks" / f"{name}.png").stat().st_mtime_ns for name in some}
    assert (parts / "last.safetensors").read_bytes() != (whole / "last.safetensors").read_bytes()
    done = distilled_until(teacher, parts, "", 0, *keys)
    assert (done.returncode, done.stderr) == (0, "")
    assert (parts / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()
    lines = [json.loads(line) for line in (parts / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 5]
    for name, mask in pseudo_masks(whole).items():
        assert np.array_equal(pseudo_masks(parts)[name], mask)
    assert not list(parts.rglob(".*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize(("what", "says"), [("mask", ""), ("step", r" after step \d, which is saved")])
def test_ctrl_c_says_how_to_go_on(teacher: Path, tmp_path: Path, what: str, says: str) -> None:
    keys = ("train.steps=5", "train.log_every=1")
    done = distilled_until(teacher, tmp_path / "out", what, 2, *keys, number=signal.SIGINT)
    assert done.returncode == 128 + signal.SIGINT
    go_on = f"u2pl: stopped by SIGINT{says}; to go on: u2pl distill {teacher} --scales 1"
    assert re.match(go_on, done.stderr)
    assert done.stderr.count("\n") == 1
    assert b"half" not in {path.read_bytes()[:4] for path in tmp_path.rglob("*.png")}


def refused(u2pl: Command, *arguments: Any) -> str:
    """The one line that a command is refused with."""
    done = u2pl("distill", *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "Traceback" not in done.err
    return str(done.err)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (("data.classes=sky,road",), "data.classes: a student has the classes and images of its teacher"),
        (("data.scale=1",), "data.scale: a student has"),
        (("data.name=scenes",), "data.name: a student has"),
        (("data.pseudo_masks=x",), "data.pseudo_masks: a student has"),
        (("seed=1",), "seed: a student has"),
        (("train.stepz=1",), "unknown key train.stepz"),
        (("network.encoder=resnet1",), "network.encoder"),
        (("network.weights=none.pt",), "none.pt"),
        (("data.labeled=99",), "labeled: 99 images requested"),
        (("data.labeled=nowhere.txt",), "nowhere.txt"),
        (("data.root=nowhere",), "nowhere"),
        (("train.nodes=2",), "train.nodes: u2pl distill labels on one machine"),
        (("--scales", "1,a"), "--scales '1,a': should be numbers"),
        (("--scales", "9"), "evaluation.scales"),
        (("--min-confidence", "1"), "--min-confidence 1.0: should be at least 0 and less than 1"),
        (("--weights", "first"), "--weights first: should be last or best"),
        (("--precision", "fp8"), "--precision fp8"),
    ],
)
def test_bad_input(u2pl: Command, teacher: Path, tmp_path: Path, keys: tuple[str, ...], says: str) -> None:
    assert says in refused(u2pl, teacher, *keys, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def test_a_run_that_is_none(u2pl: Command, teacher: Path, files: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert "is no run folder: config.yaml is missing" in refused(u2pl, tmp_path / "nowhere", *out)
    assert "is no run folder: config.yaml is missing" in refused(u2pl, files, *out)
    assert "is no run folder" in refused(u2pl, teacher / "last.safetensors", *out)
    run = copied(teacher, tmp_path / "run")
    (run / "config.yaml").write_text("name: other\n")
    assert "unknown key name" in refused(u2pl, run, *out)
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_damaged(u2pl: Command, teacher: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    run = copied(teacher, tmp_path / "run")
    weights = run / "last.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "last.safetensors holds no trained network" in refused(u2pl, run, *out)
    weights.unlink()
    assert "has no last.safetensors: its training has saved nothing yet" in refused(u2pl, run, *out)
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_finished(u2pl: Command, teacher: Path, tmp_path: Path) -> None:
    run = copied(teacher, tmp_path / "run")
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("  steps: 3\n", "  steps: 9\n"))
    assert "is not finished: 3 of 9 steps are done" in refused(u2pl, run, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_whose_data_are_others(u2pl: Command, teacher: Path, own_files: Path, tmp_path: Path) -> None:
    root, out = f"data.root={own_files}", ("--out", tmp_path / "out")
    (own_files / "classes.txt").write_text("sky\nroad\ncar\nbush\n")
    assert "data: its classes (sky, road, car, bush) are not those of" in refused(u2pl, teacher, root, *out)
    (own_files / "classes.txt").write_text("sky\nroad\ncar\ntree\n")
    (own_files / "images" / "train" / "more" / "e.png").write_bytes(b"none")
    for path in (own_files / "images" / "train" / "more").iterdir():
        path.write_bytes(b"none")
    assert "more" in refused(u2pl, teacher, root, *out)
    shutil.rmtree(own_files / "images" / "train" / "more")
    assert "have no unlabeled image to label" in refused(u2pl, teacher, root, *out)
    shutil.rmtree(own_files)
    assert str(own_files / "images") in refused(u2pl, teacher, root, *out)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_taken(u2pl: Command, teacher: Path, distilled: tuple[Path, Any], tmp_path: Path) -> None:
    run = copied(teacher, tmp_path / "run")
    for inside in (run, run / "student", run / "a" / ".." / "b"):
        assert "is the folder of the teacher, or in it" in refused(u2pl, run, "--out", inside)
    assert "holds a run that is no student" in refused(u2pl, run, "--out", copied(teacher, tmp_path / "other"))
    out = copied(distilled[0], tmp_path / "student")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert "--scales: is [1.0] now, but the pseudo-masks in" in refused(u2pl, run, *FAST, "--out", out)
    assert "--min-confidence: is 0.5 now" in refused(u2pl, run, "--min-confidence", "0.5", "--out", out)
    assert "network.channels: is 16 now but 8" in refused(u2pl, run, "--out", out)
    torch.manual_seed(0)
    weights = run / "last.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")  # another teacher
    assert "its pseudo-masks are of another teacher" in refused(u2pl, run, "network.channels=8", "--out", out)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "pseudo_masks" / "teacher.json").write_text("[")
    assert "teacher.json cannot be read" in refused(u2pl, run, "network.channels=8", "--out", out)
    (out / "pseudo_masks" / "teacher.json").unlink()
    assert "exists, but `u2pl distill` did not make it" in refused(u2pl, run, "network.channels=8", "--out", out)
