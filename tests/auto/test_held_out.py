"""Pseudo-labels on held-out labels: who is held out, what is counted, and what a run makes of it."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from tiny_run import KillAt, KilledError, build_tiny
from u2pl.auto import held_out
from u2pl.auto.facts import Precision
from u2pl.auto.held_out import folds, measured_precision
from u2pl.auto.resolving import resolved
from u2pl.auto.rules import machine
from u2pl.build import build_source
from u2pl.commands.check import check
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.config.schema import Config
from u2pl.data.source import DataSource
from u2pl.engine.machine import make_fabric
from u2pl.structures import PseudoLabel

OVERRIDES = (
    *("data.val=val", "data.workers=0", "network.embedding_dim=8", "train.crop_size=32", "train.batch_size=2"),
    *("method.contrast.bank_size=32", "method.contrast.negatives=16", "train.accelerator=cpu", "train.precision=fp32"),
)
BELIEF = ("method.reliability.min_confidence", "method.weighting.name")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of a moment: eight steps of a tiny network."""
    torch.set_num_threads(1)
    for place in ("u2pl.commands.checks", "u2pl.build.trained", "u2pl.auto.held_out"):
        monkeypatch.setattr(f"{place}.build_network", build_tiny)
    monkeypatch.setattr(machine, "CPU", machine.CPU._replace(fewest=8, most=8))


@pytest.fixture
def photos(write_folder: Callable[..., Path]) -> Path:
    """Seven labeled images of one or two of three classes, two unlabeled ones and one to validate."""
    shown: dict[str, tuple[int, ...] | None] = {
        f"train/{name}": (0, 1 + number % 2) for number, name in enumerate("abcdefg")
    }
    return write_folder({**shown, "train/y": None, "train/z": None, "val/v": (0, 1, 2)})


@pytest.mark.parametrize(
    ("labels", "trainings", "held"), [(4, 3, 4), (7, 3, 7), (49, 3, 49), (50, 1, 10), (203, 1, 41)]
)
def test_each_of_few_labels_is_held_out_once_and_a_fifth_of_many(labels: int, trainings: int, held: int) -> None:
    samples: list[Any] = list(range(labels))
    parts = list(folds(samples, seed=1))
    assert len(parts) == trainings
    for rest, out in parts:
        assert sorted(rest + out) == samples
        assert rest
        assert out
    assert len({sample for _, out in parts for sample in out}) == sum(len(out) for _, out in parts) == held
    assert [out for _, out in folds(samples, seed=1)] == [out for _, out in parts]
    assert [out for _, out in folds(samples, seed=2)] != [out for _, out in parts]


def pseudo(label: Tensor, confidence: Tensor, valid: Tensor) -> PseudoLabel:
    return PseudoLabel(label, torch.zeros_like(confidence), confidence, valid, valid, ~valid)


def precision_loop(made: list[tuple[PseudoLabel, Tensor]], classes: int) -> tuple[float, float]:
    right, sure, known = [0] * classes, [0] * classes, 0
    for guess, truth in made:
        for place in range(truth.numel()):
            if not guess.valid.flatten()[place] or truth.flatten()[place] == 255:
                continue
            known += 1
            name = int(guess.label.flatten()[place])
            if guess.confidence.flatten()[place] >= 0.95:
                sure[name] += 1
                right[name] += name == int(truth.flatten()[place])
    counted = [name for name in range(classes) if sure[name] > 1e-3 * sum(sure)]
    return (
        sum(right[name] / sure[name] for name in counted) / max(1, len(counted)),
        sum(sure) / max(1, known),
    )


@pytest.mark.parametrize(
    "case", ["random", "nothing sure", "all ignored", "one class", "at the threshold", "hardly a class"]
)
def test_precision_is_that_of_a_loop_over_pixels(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    torch.manual_seed(0)
    made = []
    for _ in range(3):
        height, width = (20, 40) if case == "hardly a class" else (5, 6)
        label, truth = torch.randint(0, 4, (2, 2, height, width)).unbind()
        truth[torch.rand(truth.shape) < 0.2] = 255
        confidence = 0.9 + 0.1 * torch.rand(truth.shape)
        if case == "nothing sure":
            confidence = confidence.clamp(max=0.949)
        if case == "all ignored":
            truth = torch.full_like(truth, 255)
        if case == "one class":
            label = torch.zeros_like(label)
        if case == "at the threshold":
            confidence = torch.where(torch.rand(truth.shape) < 0.5, 0.95, 0.949)
        if case == "hardly a class":  # one pixel of thousands says nothing about a class
            label, confidence = torch.zeros_like(label), torch.ones_like(confidence)
            label[0, 0, 0] = 1
        made.append((pseudo(label, confidence, torch.rand(truth.shape) < 0.9), truth))

    def given(config: Config, part: DataSource, fabric: Any, *, steps: int) -> Iterator[tuple[PseudoLabel, Tensor]]:
        assert steps == 3
        yield made[len(part.unlabeled) - 2]

    monkeypatch.setattr(held_out, "pseudo_labels", given)
    monkeypatch.setattr(held_out, "folds", lambda labeled, seed: [([1], [0] * count) for count in (2, 3, 4)])
    source = DataSource(tuple("abcd"), [], [], [])
    fabric = make_fabric(accelerator="cpu", devices=1, nodes=1, precision="fp32")
    found = measured_precision(Config(), source, fabric, steps=9, say=lambda line: None)
    right, share = precision_loop(made, 4)
    assert (found.right, found.share, found.images) == (pytest.approx(right), pytest.approx(share), 9)


def run(photos: Path, out: Path, *overrides: str, **options: Any) -> tuple[Config, list[str]]:
    said: list[str] = []
    train(load_config("folder", [f"data.root={photos}", *OVERRIDES, *overrides]), out, say=said.append, **options)
    return load_config(out / "config.yaml"), said


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(("right", "expected"), [(0.97, (0.95, "reliable_share")), (0.3, (0.0, "lambda_u"))])
def test_a_run_believes_what_it_measured(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: float, expected: tuple[float, str]
) -> None:
    monkeypatch.setattr("u2pl.commands.prepare.measured_precision", lambda *_, **__: Precision(right, 0.5, 7))
    config, _ = run(photos, tmp_path / "run")
    assert tuple(config.value(key) for key in BELIEF) == expected
    reasons = (tmp_path / "run" / "choices.txt").read_text()
    assert f"{100 * right:.0f} % right where sure, on 7 held-out labels" in reasons
    assert "to be measured" not in reasons


@pytest.mark.usefixtures("tiny")
def test_the_measurement_really_trains_and_changes_no_number_of_the_run(photos: Path, tmp_path: Path) -> None:
    config, said = run(photos, tmp_path / "measured")
    trainings = [line for line in said if line.startswith("auto: measuring pseudo-labels")]
    assert len(trainings) == 3
    assert "training 1 of 3, 1 steps on 4 labels, 3 held out" in trainings[0]
    given = [f"{key}={config.value(key)}" for key in (*BELIEF, "method.schedule.warmup", "method.schedule.ramp")]
    _, said = run(photos, tmp_path / "given", *given)
    assert not any("measuring" in line for line in said)
    one, other = ((tmp_path / name / "last.safetensors").read_bytes() for name in ("measured", "given"))
    assert one == other


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("classes", [(0, 1), (1, 0)])  # without training, one of the two would be right by chance
def test_pseudo_labels_are_of_a_teacher_that_learns_the_labels(
    write_folder: Callable[..., Path], classes: tuple[int, int]
) -> None:
    root = write_folder({f"train/{name}": classes for name in "abcd"}, classes=("one", "other"))
    for path in root.glob("images/train/*.png"):
        image = Image.new("RGB", (16, 12), (10, 10, 10))
        image.paste((240, 240, 240), (8, 0, 16, 12))
        image.save(path)
    keys = ["train.lr=0.1", "train.optimizer=sgd", "train.steps=60", "train.scale_range=[1.0, 1.0]", "data.val=none"]
    config = load_config("folder", [f"data.root={root}", *OVERRIDES, *keys, "train.crop_size=16"])
    source = build_source(config.data, seed=0)
    part = replace(source, labeled=source.labeled[:2], unlabeled=source.labeled[2:])
    fabric = make_fabric(accelerator="cpu", devices=1, nodes=1, precision="fp32")
    right = known = 0
    config = resolved(config, part, fabric).config
    for pseudo, truth in held_out.pseudo_labels(config, part, fabric, steps=60):
        where = pseudo.valid & (truth != 255)
        right += int((pseudo.label == truth)[where].sum())
        known += int(where.sum())
    assert known >= 2 * 12 * 16 / 2
    assert right / known > 0.9


@pytest.mark.usefixtures("tiny")
def test_a_resumed_run_does_not_measure_again(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "whole")
    with pytest.raises(KilledError):
        run(photos, tmp_path / "killed", "train.save_every=1", watchers=(KillAt(3),))
    _, said = run(photos, tmp_path / "killed", "train.save_every=1", resume=True)
    assert not any("measuring" in line for line in said)
    one, other = ((tmp_path / name / "last.safetensors").read_bytes() for name in ("whole", "killed"))
    assert one == other


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    "overrides",
    [
        ("data.labeled=3",),
        ("method.name=supervised",),
        ("method.name=fixmatch",),
        ("method.reliability.min_confidence=0.5",),
        ("method.weighting.name=lambda_u",),
    ],
)
def test_what_is_not_measured(photos: Path, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    _, said = run(photos, tmp_path / "run", *overrides)
    assert not any("measuring" in line for line in said)


@pytest.mark.usefixtures("tiny")
def test_a_check_says_that_it_will_be_measured(photos: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    assert check("folder", [f"data.root={photos}", *OVERRIDES], console)
    assert "to be measured on held-out labels before training" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_two_processes_measure_the_same_and_train_on(photos: Path, tmp_path: Path) -> None:
    network = ("network.encoder=mobilenet_v2", "network.pretrained=false", "network.channels=32", "train.crop_size=64")
    command = [str(Path(sys.executable).with_name("u2pl")), "train", "folder", f"data.root={photos}"]
    keys = [*OVERRIDES, *network, "train.steps=4", "method.contrast.keys_per_step=8", "train.devices=2"]
    done = subprocess.run(
        [*command, *keys, "--out", str(tmp_path / "run")], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    reasons = (tmp_path / "run" / "choices.txt").read_text()
    assert "right where sure, on 7 held-out labels" in reasons
    assert (tmp_path / "run" / "last.safetensors").exists()
