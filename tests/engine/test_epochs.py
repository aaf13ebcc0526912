"""A length in epochs becomes one in steps once the data set is known, and stays what it was when resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from u2pl.config.overrides import load_config
from u2pl.engine.evaluate import Scores
from u2pl.errors import InputError

Train = Callable[..., Any]
#: 8 scenes, 3 of them labeled, in batches of 2: five steps.
TWO_EPOCHS = ("train.epochs=2", "train.log_every=1", "train.save_every=1")


class Total:
    """A watcher that remembers how long training is, and ends it early."""

    def __init__(self, last: int = 99) -> None:
        self.total, self.last = 0, last

    def begin(self, steps: int) -> None:
        self.total = steps

    def step(self, done: int, losses: Mapping[str, float]) -> None:
        if done > self.last:
            raise KeyboardInterrupt

    def evaluated(self, done: int, scores: Mapping[str, Scores]) -> None:
        pass


def steps(folder: Path) -> list[int]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "lr" in line]


def test_epochs_are_of_the_unlabeled_images(tmp_path: Path, tiny_train: Train) -> None:
    watcher = Total()
    tiny_train(tmp_path, *TWO_EPOCHS, "method.name=supervised", watchers=(watcher,))
    saved = load_config(tmp_path / "config.yaml").train
    assert (saved.steps, saved.epochs) == (5, 2)
    assert watcher.total == 5
    assert steps(tmp_path) == [1, 2, 3, 4, 5]
    rates = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert min(line["lr"] for line in rates if "lr" in line) == 0  # the schedule ends where training does


def test_a_run_of_epochs_resumes(tmp_path: Path, tiny_train: Train) -> None:
    with pytest.raises(KeyboardInterrupt):
        tiny_train(tmp_path, *TWO_EPOCHS, watchers=(Total(last=2),))
    watcher = Total()
    tiny_train(tmp_path, *TWO_EPOCHS, resume=True, watchers=(watcher,))
    assert watcher.total == 5
    assert steps(tmp_path) == [1, 2, 3, 4, 5]
    with pytest.raises(InputError, match=r"^train\.(steps|epochs): is"):
        tiny_train(tmp_path, *TWO_EPOCHS, "train.epochs=3", resume=True)
