"""The loop: when things are due, what is reported, and what stops it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from u2pl.engine.evaluate import Scores
from u2pl.engine.fit import is_due
from u2pl.errors import InputError
from u2pl.methods.base import Method
from u2pl.structures import Batch

Train = Callable[..., Any]


class Recorder:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.steps: list[int] = []
        self.scored: list[tuple[int, list[str]]] = []

    def begin(self, steps: int) -> None:
        self.total = steps

    def step(self, done: int, losses: Mapping[str, float]) -> None:
        self.steps.append(done)

    def evaluated(self, done: int, scores: Mapping[str, Scores]) -> None:
        self.scored.append((done, list(scores)))


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("every", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (0, [5]), (9, [5])], ids=str
)
def test_due_every_so_often_and_after_the_last_step(every: int, expected: list[int]) -> None:
    assert [done for done in range(1, 6) if is_due(done, every, 5)] == expected


@pytest.mark.parametrize("due", ["save_every", "eval_every", "log_every"])
def test_training_that_diverges_stops_and_saves_nothing_of_it(tmp_path: Path, tiny_train: Train, due: str) -> None:
    every = {"save_every": 0, "eval_every": 0, "log_every": 100, due: 5}
    overrides = (f"train.{key}={value}" for key, value in every.items())
    with pytest.raises(InputError, match=r"^training diverged: .* not finite at step [0-4]; lower train\.lr$"):
        tiny_train(tmp_path, "train.lr=1e6", "train.momentum=0.99", "method.schedule.warmup=0", *overrides)
    assert not list(tmp_path.glob("*.ckpt")) + list(tmp_path.glob("*.safetensors"))


def test_weights_that_are_not_finite_do_not_replace_good_ones(
    tmp_path: Path, tiny_train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses of a step are finite, and its update is what breaks the weights."""

    def breaking(student: nn.Module) -> None:
        steps.append(len(steps))
        if len(steps) == 5:
            next(student.parameters()).data[0] = math.inf

    steps: list[int] = []
    monkeypatch.setattr(Method, "after_step", lambda self, student: breaking(student))
    told = r"^training diverged: the weights are not finite at step 4; .* keeps the weights of step 4; lower train\.lr$"
    with pytest.raises(InputError, match=told):
        tiny_train(tmp_path, "method.name=supervised", "train.save_every=1", "train.eval_every=1")
    for name in ("last", "best"):
        assert all(value.isfinite().all() for value in load_file(tmp_path / f"{name}.safetensors").values())
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["step"] == 4


def test_watchers_and_journal_are_told_when_due(tmp_path: Path, tiny_train: Train) -> None:
    watcher = Recorder()
    trained = tiny_train(tmp_path, "train.log_every=6", "train.eval_every=4", watchers=(watcher,))
    assert watcher.total == 16
    assert watcher.steps == [6, 12, 16]
    # progress is below the warm-up of 4 in 16 for four steps: after them there is no teacher yet
    assert watcher.scored == [
        (4, ["student"]),
        (8, ["student", "teacher"]),
        (12, ["student", "teacher"]),
        (16, ["student", "teacher"]),
    ]
    assert list(trained.scores) == ["student", "teacher"]
    lines = metrics(tmp_path)
    losses = [line for line in lines if "lr" in line]
    assert [line["step"] for line in losses] == [6, 12, 16]
    assert {"loss/supervised", "loss/unsupervised", "loss/contrastive", "steps_per_second"} <= set(losses[-1])
    last = [line for line in lines if "teacher/miou" in line][-1]
    assert last["teacher/miou"] == trained.scores["teacher"].miou
    assert last["teacher/iou/sky"] == trained.scores["teacher"].iou["sky"]


def test_best_is_the_highest_score_of_the_model_to_use(tmp_path: Path, tiny_train: Train) -> None:
    tiny_train(tmp_path, "train.eval_every=2", "train.lr=0.05")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    lines = [line for line in metrics(tmp_path) if "student/miou" in line or "teacher/miou" in line]
    by_step: dict[int, float] = {}
    for line in lines:  # the teacher's line follows the student's
        by_step[line["step"]] = line.get("teacher/miou", line.get("student/miou", 0.0))
    assert state["best"] == max(by_step.values())
    assert (tmp_path / "best.safetensors").exists()


def test_losses_are_weighted_by_the_engine(tmp_path: Path, tiny_train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sums(Method):
        """Two losses whose gradients are one and three."""

        def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
            total = sum(parameter.sum() for parameter in student.parameters())
            return {"supervised": total, "contrastive": 3 * total}

    monkeypatch.setattr("u2pl.commands.prepare.build_method", lambda *parts, **options: Sums())
    options = (
        "train.steps=1",
        "train.optimizer=sgd",
        "train.lr=0.5",
        "train.lr_warmup=0",
        "train.head_lr_factor=1",
        "train.weight_decay=0",
    )
    biases = []
    for weight in (0.0, 0.25):
        tiny_train(tmp_path / str(weight), *options, f"method.loss_weights.contrastive={weight}")
        state = torch.load(tmp_path / str(weight) / "last.ckpt", weights_only=True)
        biases.append(state["student"]["classifier.bias"])
    assert torch.allclose(biases[0] - biases[1], torch.tensor(0.5 * 0.25 * 3))


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path, tiny_train: Train) -> None:
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        tiny_train(tmp_path / name, f"seed={seed}", "train.steps=6")
    saved = [(tmp_path / name / "last.safetensors").read_bytes() for name in "abc"]
    assert saved[0] == saved[1]
    assert saved[0] != saved[2]
