"""A killed run goes on to the weights and losses it would have had."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_run import KillAt, KilledError
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.errors import InputError

Train = Callable[..., Any]
#: Saves, reports and evaluations that never fall together before the end.
EVERY = ("train.save_every=5", "train.log_every=3", "train.eval_every=7")


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl but for the speed."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "steps_per_second"} for line in lines]


def assert_same(a: Any, b: Any) -> None:
    """Bit by bit, through nested containers."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, Mapping):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b


def assert_same_run(a: Path, b: Path) -> None:
    assert (a / "last.safetensors").read_bytes() == (b / "last.safetensors").read_bytes()
    assert (a / "best.safetensors").read_bytes() == (b / "best.safetensors").read_bytes()
    assert_same(*(torch.load(folder / "last.ckpt", weights_only=True) for folder in (a, b)))
    assert metrics(a) == metrics(b)


@pytest.mark.parametrize(
    ("workers", "kill"),
    [(0, 3), (0, 6), (0, 12), (1, 12)],
    ids=["before a save", "in the warm-up's wake", "with a bank", "with a loader process"],
)
def test_resumed_equals_never_stopped(tmp_path: Path, tiny_train: Train, workers: int, kill: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tiny_train(whole, *EVERY)
    with pytest.raises(KilledError):
        tiny_train(parts, *EVERY, f"data.workers={workers}", watchers=(KillAt(kill),))
    assert not (parts / "last.safetensors").exists() or kill > 5
    tiny_train(parts, *EVERY, f"data.workers={workers}", resume=True)
    state = torch.load(parts / "last.ckpt", weights_only=True)
    assert state["method"]["contrast.bank.pushed"].sum() > 0
    assert metrics(parts)[-1]["step"] == 16
    assert min(line["loss/contrastive"] for line in metrics(parts) if line.get("lr") and line["step"] > 4) > 0
    assert state["method"]["teacher._extra_state"]["updates"] == 12
    assert_same_run(whole, parts)


ACROSS = (
    "method.mixing.name=cross_domain",
    "method.strong_views.jitter=mixed",
    "method.weighting.name=confident_share",
)


MASKED = (*ACROSS, "method.masked_consistency=true", "method.masked_consistency.threshold=0.1")


SCENES = [f"data.{part}.{key}" for part in ("source", "target") for key in ("name=scenes", "height=32", "width=48")]
OF_ONE = [f"data.{key}=null" for key in ("train", "val", "labeled", "height", "width")]
DOMAINS = (
    *MASKED,
    "data.name=domain",
    *OF_ONE,
    *SCENES,
    "data.source.train=5",
    "data.target.train=6",
    "data.target.val=3",
)
OF_BOTH = (*DOMAINS, "data.target.labeled=2", "data.target.domain=night", "train.batch_size=3")


@pytest.mark.parametrize(
    "method",
    [("method.name=supervised",), ("method.name=mean_teacher",), ACROSS, MASKED, OF_BOTH],
    ids=["labels", "teacher", "across", "masked", "labels of both domains"],
)
def test_other_methods_resume_too(tmp_path: Path, tiny_train: Train, method: tuple[str, ...]) -> None:
    options = (*EVERY, *method, "train.optimizer=adamw", "train.steps=10")
    tiny_train(tmp_path / "whole", *options)
    with pytest.raises(KilledError):
        tiny_train(tmp_path / "parts", *options, watchers=(KillAt(6),))
    tiny_train(tmp_path / "parts", *options, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    last = [line for line in metrics(tmp_path / "whole") if line.get("lr")][-1]
    assert (last.get("loss/masked", 0) > 0) == (method in (MASKED, OF_BOTH))


def test_a_run_with_every_option_resumes_too(tmp_path: Path, tiny_train: Train, all_options: tuple[str, ...]) -> None:
    tiny_train(tmp_path / "whole", *EVERY, *all_options)
    with pytest.raises(KilledError):
        tiny_train(tmp_path / "parts", *EVERY, *all_options, watchers=(KillAt(8),))
    saved = torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)["method"]
    assert saved["contrast.prototypes.updates"].sum() > 0
    (steps,) = [value for name, value in saved.items() if name.endswith("alignment.steps")]
    assert steps.tolist() == [5, 1]  # labels in the warm-up too, predictions after it
    tiny_train(tmp_path / "parts", *EVERY, *all_options, resume=True)
    assert min(line["loss/negative"] for line in metrics(tmp_path / "parts") if line.get("lr") and line["step"] > 6) > 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_run_just_answers(tmp_path: Path, tiny_train: Train) -> None:
    first = tiny_train(tmp_path, "train.steps=6")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "tfevents" not in path.name}
    again = tiny_train(tmp_path, "train.steps=6", resume=True)
    assert again.scores == first.scores
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.lr=0.5", "train.lr"),
        ("data.labeled=4", "data.labeled"),
        ("method.mixing.name=classmix", "method.mixing.name"),
        ("method.contrast=false", r"method\.contrast\S*"),
        ("method.reliability.alpha=0.5", "method.reliability.alpha"),
        ("network.dropout=0.5", "network.dropout"),
        ("seed=1", "seed"),
    ],
)
def test_another_configuration_is_refused(tmp_path: Path, tiny_train: Train, override: str, key: str) -> None:
    tiny_train(tmp_path, "train.steps=2")
    saved = (tmp_path / "last.ckpt").read_bytes()
    with pytest.raises(InputError, match=f"^{key}: is .* now but") as caught:
        tiny_train(tmp_path, "train.steps=2", override, resume=True)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "last.ckpt").read_bytes() == saved


def test_the_number_of_loader_processes_may_change(tmp_path: Path, tiny_train: Train) -> None:
    tiny_train(tmp_path, "train.steps=2")
    tiny_train(tmp_path, "train.steps=2", "data.workers=1", resume=True)


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path, tiny_train: Train) -> None:
    tiny_train(tmp_path, "train.steps=2")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"already holds a run; add --resume"):
        tiny_train(tmp_path, "train.steps=2")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_damaged_last_save_is_told(tmp_path: Path, tiny_train: Train) -> None:
    tiny_train(tmp_path, "train.steps=2")
    path = tmp_path / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"last\.ckpt is damaged .* and cannot be resumed from"):
        tiny_train(tmp_path, "train.steps=2", resume=True)


def test_resuming_where_nothing_is_yet_begins(tmp_path: Path, tiny_train: Train) -> None:
    tiny_train(tmp_path / "new", "train.steps=2", resume=True)
    assert (tmp_path / "new" / "last.safetensors").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, tiny_train: Train) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--out .*file: cannot write there"):
        tiny_train(tmp_path / "file", "train.steps=2")


@pytest.mark.slow
def test_a_run_killed_for_real_goes_on(tmp_path: Path, tiny_overrides: tuple[str, ...]) -> None:
    overrides = [*tiny_overrides, "train.steps=24", "train.save_every=4", "train.log_every=1", "train.eval_every=9"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command = Path(sys.executable).with_name("u2pl")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with subprocess.Popen(
        [command, "train", "scenes", *overrides, "--out", parts],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        journal, deadline = parts / "metrics.jsonl", time.monotonic() + 300
        while not (journal.exists() and journal.read_text().count("\n") >= 10):
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    stopped = torch.load(parts / "last.ckpt", weights_only=True)["step"]
    assert 0 < stopped < 24
    config = load_config("scenes", overrides)
    train(config, parts, resume=True, say=lambda line: None)
    train(config, whole, say=lambda line: None)
    assert_same_run(whole, parts)
