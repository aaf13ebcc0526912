"""Training, scoring and checking on image-level tags from the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny_run import KillAt, KilledError
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.engine.checkpoint import read_description

Command = Callable[..., Any]
TAGS = "image,tags\n" + "".join(
    f"train/{name},{tags}\n" for name, tags in zip("abcd", ("road", "car", "tree;road", "car"), strict=True)
)
TAGS += "".join(f"train/more/{name},tree\n" for name in "efg")
WEAK = (
    "method.name=weak_u2pl",
    "data.labeled=0",
    "data.tags=tags.csv",
    "method.cam.warmup=0.3",
    "method.schedule.warmup=0.6",
)


@pytest.fixture(scope="module")
def tagged_files(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tagged") / "set"
    shutil.copytree(files, root)
    (root / "tags.csv").write_text(TAGS)
    return root


@pytest.fixture(scope="module")
def weak_run(
    u2pl: Command, tagged_files: Path, yaml: Path, small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("weak") / "run"
    done = u2pl("train", yaml, f"data.root={tagged_files}", *small, *WEAK, "train.log_every=1", "--out", out)
    assert (done.code, done.err) == (0, "")
    assert "weak_u2pl on folder: 0 labeled, 7 unlabeled, 2 validation images" in " ".join(done.out.split())
    return out


def test_a_run_tells_its_losses_and_scores(weak_run: Path) -> None:
    lines = [json.loads(line) for line in (weak_run / "metrics.jsonl").read_text().splitlines()]
    losses = [{key for key in line if key.startswith("loss/")} for line in lines if "lr" in line]
    first = {"loss/supervised", "loss/classification", "loss/contrastive"}
    assert losses == [first, first, first | {"loss/unsupervised"}]
    assert any("teacher/miou" in line for line in lines)
    assert read_description(weak_run / "last.safetensors")["method"] == "weak_u2pl"


def test_stages_are_scored_apart(u2pl: Command, weak_run: Path, tagged_files: Path) -> None:
    shown = u2pl("evaluate", weak_run, "--json")
    assert (shown.code, shown.err) == (0, "")
    scores = json.loads(shown.out)
    assert list(scores["stages"]) == ["cam", "refined", "segmentation"]
    assert scores["stages"]["segmentation"] == scores["miou"]
    assert all(0 <= value <= 100 for value in scores["stages"].values())
    val = ("--images", tagged_files / "images" / "val", "--masks", tagged_files / "masks" / "val")
    assert json.loads(u2pl("evaluate", weak_run, *val, "--json").out) == scores
    file = json.loads(u2pl("evaluate", weak_run / "last.safetensors", *val, "--json").out)
    assert file["miou"] == scores["miou"]
    assert file["stages"].keys() == scores["stages"].keys()
    text = u2pl("evaluate", weak_run)
    for word in ("cam", "refined", "segmentation", "told the classes of each mask", "mIoU"):
        assert word in text.out
    other = json.loads(u2pl("evaluate", weak_run, "method.cam.high=0.9", "method.cam.low=0.9", "--json").out)
    assert other["miou"] == scores["miou"]
    assert other["stages"]["cam"] != scores["stages"]["cam"]


def test_a_run_without_tags_has_no_stages(u2pl: Command, run_folder: Path) -> None:
    assert "stages" not in json.loads(u2pl("evaluate", run_folder, "--json").out)


def test_its_masks_are_predicted_as_any_others(
    u2pl: Command, weak_run: Path, tagged_files: Path, tmp_path: Path
) -> None:
    done = u2pl("predict", weak_run, tagged_files / "images" / "val", "--out", tmp_path)
    assert (done.code, done.err) == (0, "")


def test_check_counts_tagged_images(u2pl: Command, yaml: Path, tagged_files: Path) -> None:
    shown = u2pl("check", yaml, f"data.root={tagged_files}", *WEAK)
    assert (shown.code, shown.err) == (0, "")
    assert ": no labeled, 7 unlabeled of 72x68 to 64x80, 2 validation of " in shown.out
    lines = shown.out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("class "))
    assert (lines[head - 1].split()[-1], lines[head].split()[-1]) == ("tagged", "images")
    tagged = {line.split()[0]: line.split()[3:] for line in lines[head + 1 : head + 5]}
    assert tagged == {"sky": [], "road": ["2"], "car": ["2"], "tree": ["4"]}  # after share and validation images


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TAGS.replace("train/b,car\n", ""), "1 image (train/b) without a tag"),
        (TAGS.replace("b,car", "b,caar"), "'caar', which is no class of this data set (did you mean car?)"),
        (TAGS + "train/z,car\n", "rows for 1 image (train/z) not found"),
    ],
)
def test_bad_tags_are_one_line(
    u2pl: Command, own_files: Path, yaml: Path, text: str, told: str, tmp_path: Path
) -> None:
    (own_files / "tags.csv").write_text(text)
    out = tmp_path / "run"
    shown = u2pl("train", yaml, f"data.root={own_files}", *WEAK, "--out", out)
    assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert told in shown.err
    assert not out.exists()


def test_masks_tags_and_nothing_in_one_run(
    u2pl: Command, own_files: Path, yaml: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    for name in "cd":
        (own_files / "masks" / "train" / f"{name}.png").unlink()
    (own_files / "tags.csv").write_text("image,tags\ntrain/c,road\ntrain/d,car;tree\n")
    mixed = [word for word in WEAK if not word.startswith("data.labeled")]
    done = u2pl("train", yaml, f"data.root={own_files}", *small, *mixed, "train.log_every=1", "--out", tmp_path / "run")
    assert (done.code, done.err) == (0, "")
    assert "2 labeled, 5 unlabeled" in " ".join(done.out.split())
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss/supervised"] > 0  # labels train from the first step
    assert lines[0]["loss/classification"] > 0


def test_resuming_is_exact(
    u2pl: Command, weak_run: Path, tagged_files: Path, yaml: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    """Killed after two of three steps, within the second phase."""
    overrides = [f"data.root={tagged_files}", *small, *WEAK, "train.log_every=1"]
    config = load_config(yaml, [*overrides, "train.save_every=1"])
    out = tmp_path / "run"
    with pytest.raises(KilledError):
        train(config, out, watchers=(KillAt(2),), say=lambda line: None)
    train(config, out, resume=True, say=lambda line: None)
    assert (out / "last.safetensors").read_bytes() == (weak_run / "last.safetensors").read_bytes()
