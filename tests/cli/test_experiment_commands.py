"""Compare and ablate as a user would, killed for real and shared by two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from u2pl.commands.train import train
from u2pl.config.overrides import load_config

Command = Callable[..., Any]
SCENES = ("data.train=6", "data.val=1", "data.height=64", "data.width=64", "data.labeled=3", "data.workers=0")


def refuse(result: Any, fragment: str) -> None:
    """One line on stderr, exit code 2, nothing else."""
    assert (result.code, result.out) == (2, ""), result
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("u2pl: ")
    assert fragment in result.err


@pytest.mark.parametrize("command", ["compare", "ablate"])
def test_help(u2pl: Command, command: str) -> None:
    shown = u2pl(command, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert "Usage: " in shown.out


def test_compare_trains_variants_with_brackets_and_split_files(
    u2pl: Command, files: Path, yaml: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "split.txt").write_text("train/a\ntrain/b\n")
    variant = ("--variant", "one scale: method.name=supervised train.scale_range=[1,1]")
    labeled = ("--labeled", str(tmp_path / "split.txt"))
    out = tmp_path / "out"
    arguments = ("compare", yaml, f"data.root={files}", *small, "train.steps=1", *variant, *labeled, "--out", out)
    listed = u2pl(*arguments, "--dry-run")
    assert (listed.code, listed.err) == (0, "")
    assert "1 run in" in listed.out
    assert not out.exists()
    done = u2pl(*arguments)
    assert (done.code, done.err) == (0, "")
    results = json.loads((out / "results.json").read_text())
    assert [(r["name"], r["labeled_images"], list(r["iou"])) for r in results] == [
        ("one scale", 2, ["sky", "road", "car", "tree"])
    ]
    for result in results:
        assert load_config(Path(result["folder"]) / "config.yaml").train.scale_range == [1.0, 1.0]
    assert "results.json, table.md and plot.png in" in done.out
    again = u2pl(*arguments)
    assert "run " not in again.out
    assert again.code == 0


def test_default_folders_are_named_after_the_configuration(u2pl: Command, small: tuple[str, ...]) -> None:
    compared = u2pl("compare", "scenes", *small, *SCENES, "--methods", "supervised", "--dry-run")
    ablated = u2pl(
        "ablate", "scenes", *small, *SCENES, "--axis", "method.mixing.name=none,cutmix", "--seeds", "2", "--dry-run"
    )
    assert "1 run in runs/compare-scenes" in compared.out
    assert "2 runs in runs/ablate-scenes" in ablated.out
    assert "reference-2" in ablated.out
    assert "method.mixing.name_none-2" in ablated.out


def test_bad_input(u2pl: Command, small: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"

    def compare(*options: str) -> Any:
        return u2pl("compare", "scenes", *small, *SCENES, *options, "--out", out)

    def ablate(*options: str) -> Any:
        return u2pl("ablate", "scenes", *small, *SCENES, *options, "--out", out)

    refuse(compare(), "nothing to compare; give --methods or --variant")
    refuse(compare("--methods", "u2pl,fixmach"), "fixmach: method.name: should be")
    refuse(compare("--methods", "u2pl", "--labeled", "3,99"), "u2pl: data.labeled: 99 is more than the 6 scenes")
    refuse(compare("--methods", "u2pl", "--seeds", "0,x"), "--seeds '0,x': 'x' is no seed")
    refuse(compare("--methods", "u2pl,,"), "--methods 'u2pl,,': an item is empty")
    refuse(compare("--variant", "ours"), 'write "NAME: key=value key=value"')
    refuse(compare("train.step=3", "--methods", "u2pl"), "unknown key train.step")
    refuse(u2pl("compare", "scnes", "--methods", "u2pl", "--out", out), "no preset 'scnes'")
    refuse(ablate(), "nothing to ablate; give --axis")
    refuse(ablate("--axis", "method.reliability.alhpa=1"), "unknown key method.reliability.alhpa (did you mean alpha?)")
    refuse(
        ablate("--axis", "method.reliability.alpha=0.1,2"),
        "method.reliability.alpha=2: method.reliability.alpha: should be",
    )
    refuse(ablate("--axis", "train.scale_range=[1,2"), "is not YAML")
    assert not out.exists()


@pytest.mark.slow
def test_a_comparison_killed_for_real_goes_on(small: tuple[str, ...], tmp_path: Path) -> None:
    overrides = (*small, *SCENES, "train.steps=12", "train.save_every=4", "train.log_every=1")
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = [Path(sys.executable).with_name("u2pl"), "compare", "scenes", *overrides]
    command += ["--methods", "supervised,u2pl", "--out", out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        journal, deadline = out / "u2pl-3-0" / "metrics.jsonl", time.monotonic() + 900
        while not (journal.exists() and journal.read_text().count("\n") >= 6):
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (out / "u2pl-3-0" / "scores.json").exists()
    assert "| u2pl | - |" in (out / "table.md").read_text(encoding="utf-8")
    first = (out / "supervised-3-0" / "metrics.jsonl").read_bytes()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "run 2 of 2: u2pl-3-0" in done.stdout
    assert "supervised-3-0" not in done.stdout
    assert (out / "supervised-3-0" / "metrics.jsonl").read_bytes() == first
    trained = train(load_config("scenes", [*overrides, "method.name=u2pl"]), whole, say=lambda line: None)
    assert (out / "u2pl-3-0" / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()
    results = json.loads((out / "results.json").read_text())
    assert [result["method"] for result in results] == ["supervised", "u2pl"]
    assert results[1]["miou"] == trained.scores["teacher"].miou
    assert not list(out.rglob("*.partial"))


@pytest.mark.slow
def test_two_processes_share_every_run_and_one_writes(small: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [Path(sys.executable).with_name("u2pl"), "compare", "scenes", *small, *SCENES, "train.devices=2"]
    command += ["train.batch_size=1", "--methods", "supervised,u2pl", "--out", out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for repeat in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("plot.png in") == 1
        assert done.stdout.count("run 2 of 2: u2pl-3-0") == 1 - repeat
    assert len(json.loads((out / "results.json").read_text())) == 2
