"""Two processes on one machine: one run, and the same state in both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import resnet18

from u2pl.commands.evaluate import score_run
from u2pl.config.overrides import load_config
from u2pl.errors import InputError
from u2pl.predictor import Predictor

pytestmark = pytest.mark.slow

TWO = ("train.devices=2", "train.steps=8", "train.save_every=4", "train.log_every=1")

#: Keeps what each process ends with.
SCRIPT = """
import sys
from pathlib import Path

import torch

import u2pl.commands.train
from u2pl.config.overrides import load_config

fit = u2pl.commands.train.fit


def keeping(fabric, run, *, student, method, **parts):
    scores = fit(fabric, run, student=student, method=method, **parts)
    kept = {"student": student.state_dict(), "method": method.state_dict()}
    torch.save(kept, run.folder / f"process{fabric.global_rank}.pt")
    return scores


u2pl.commands.train.fit = keeping
u2pl.commands.train.train(load_config("scenes", sys.argv[2:]), Path(sys.argv[1]))
"""


def launch(*command: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = tuple(map(str, command))
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)


#: The classifier alone for two steps, seeds for two, then all.
WEAK = (
    *("method.name=weak_u2pl", "method.cam.warmup=0.25", "method.schedule.warmup=0.5"),
    *("data.kind=objects", "data.labeled=0", "data.tags=masks"),
)


#: Parameters without gradient, and batch normalisation that neither synchronises nor follows.
FROZEN = ("network.freeze=true",)


@pytest.mark.parametrize("options", ["plain", "with every option", "weak", "frozen"])
def test_processes_end_with_the_same_student_teacher_and_banks(
    tmp_path: Path, tiny_overrides: tuple[str, ...], all_options: tuple[str, ...], options: str
) -> None:
    script, out = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT)
    more = {"plain": (), "with every option": all_options, "weak": WEAK, "frozen": FROZEN}[options]
    done = launch(sys.executable, script, out, *tiny_overrides, *TWO, *more)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(out / f"process{rank}.pt", weights_only=True) for rank in range(2))
    for part in ("student", "method"):
        assert list(first[part]) == list(second[part])
        for name, value in first[part].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, second[part][name]), name
            else:
                assert value == second[part][name], name
    step = "u2pl." if options == "weak" else ""
    method = {name.removeprefix(step): value for name, value in first["method"].items()}
    assert method["teacher._extra_state"]["updates"] == 6
    assert method["contrast.bank.pushed"].sum() > 0
    if options == "with every option":
        assert method["contrast.prototypes.updates"].sum() > 0
        (steps,) = [value for name, value in method.items() if name.endswith("alignment.steps")]
        assert steps.tolist() == [8, 6]
    # A teacher is an average of students, its statistics included: neither the student nor where it began.
    means = [key for key in first["student"] if key.endswith("running_mean")]
    if options == "frozen":
        still = [key for key in means if key.startswith("encoder.")]
        assert still
        assert not any(first["student"][key].any() for key in still)
        assert not any(f"teacher.network.{key}" in method for key in still)
        means = [key for key in means if key not in still]
    name = means[0]
    assert not torch.equal(method[f"teacher.network.{name}"], first["student"][name])


def test_a_run_of_two_processes_is_like_any_other_afterwards(tmp_path: Path, tiny_overrides: tuple[str, ...]) -> None:
    out = tmp_path / "run"
    done = launch(Path(sys.executable).with_name("u2pl"), "train", "scenes", *tiny_overrides, *TWO, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("weights, metrics and curves in") == 1  # one process speaks
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "lr" in line] == list(range(1, 9))
    scores = score_run(out)
    assert scores.miou == pytest.approx([line for line in lines if "teacher/miou" in line][-1]["teacher/miou"])
    prediction = Predictor.from_run(out)(torch.zeros(3, 40, 56, dtype=torch.uint8))
    assert prediction.mask.shape == (40, 56)
    assert load_config(out / "config.yaml").train.devices == 2


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("method.negative_keys.low_rank=10", "method.negative_keys: low_rank and high_rank: 10 and 10"),
        ("method.contrast.keys_per_step=100", "method.contrast.keys_per_step: 100 keys of each of 2 processes"),
        ("method.contrast.bank_size=1000000000", "method.contrast.bank_size"),
    ],
)
def test_bad_input_is_told_once(tmp_path: Path, tiny_overrides: tuple[str, ...], override: str, told: str) -> None:
    command = (Path(sys.executable).with_name("u2pl"), "train", "scenes", *tiny_overrides, *TWO)
    done = launch(*command, override, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert told in done.stderr
    assert not (tmp_path / "run").exists()


def test_keys_of_all_processes_have_to_fit_a_queue(tiny_overrides: tuple[str, ...]) -> None:
    from u2pl.build.method import build_contrast

    method = load_config("scenes", [*tiny_overrides, "method.contrast.keys_per_step=20"]).method
    build_contrast(method, 10, 8)
    with pytest.raises(InputError, match=r"^method\.contrast\.keys_per_step: 20 keys of each of 2 processes"):
        build_contrast(method, 10, 8, processes=2)


def test_processes_share_out_the_images_that_a_prior_is_made_of(
    tmp_path: Path, tiny_overrides: tuple[str, ...]
) -> None:
    """Random weights of an encoder, saved, stand for pretrained ones."""
    weights = tmp_path / "weights.pt"
    torch.save(resnet18(weights=None).state_dict(), weights)
    objects = ("data.kind=objects", "data.train=19", "data.labeled=6", "data.val=4")
    prior = (f"network.weights={weights}", "method.image_prior.sharpness=2", "method.name=mean_teacher")
    found = []
    for devices in (1, 2):
        out = tmp_path / f"run{devices}"
        command = (Path(sys.executable).with_name("u2pl"), "train", "scenes", *tiny_overrides, *TWO, *objects, *prior)
        done = launch(*command, f"train.devices={devices}", "--out", out)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("image_prior: made for 13 unlabeled images") == 1
        found.append(load_file(out / "last.safetensors"))
    one, two = found
    assert one["image_prior.weight"].any()
    for name in ("weight", "bias"):
        torch.testing.assert_close(one[f"image_prior.{name}"], two[f"image_prior.{name}"], rtol=1e-3, atol=1e-4)
