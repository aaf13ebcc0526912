"""A network small enough to train in a test, and runs of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tiny_run import TinyNetwork, build_tiny
from u2pl.config.overrides import load_config

#: A run of a moment on procedural scenes: four steps of supervised training, then twelve with teacher and bank.
TINY = (
    *("data.train=8", "data.val=3", "data.labeled=3", "data.height=32", "data.width=48", "data.workers=0"),
    *("network.channels=16", "network.low_level_channels=8", "network.embedding_dim=8"),
    *(
        "method.schedule.warmup=0.25",
        "method.schedule.ramp=0.3",
        "method.contrast.bank_size=32",
        "method.contrast.keys_per_step=8",
        "method.contrast.negatives=16",
    ),
    "method.contrast.min_probability=0.05",  # a network that has learned nothing yet has anchors, too
    *("train.steps=16", "train.batch_size=2", "train.crop_size=32", "train.lr_warmup=2", "train.head_lr_factor=3"),
    *("train.accelerator=cpu", "train.precision=fp32"),
)

#: Every option for few and noisy labels.
OPTIONS = (
    *("method.reliability.class_wise=true", "method.alignment=true", "method.loss_weights.negative=0.5"),
    *(
        "method.prototypes=true",
        "method.denoising=true",
        "method.unsupervised_loss.name=symmetric",
        "method.unsupervised_loss.reverse_weight=0.1",
    ),
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_network() -> Callable[..., nn.Module]:
    return TinyNetwork


@pytest.fixture(scope="session")
def tiny_overrides() -> tuple[str, ...]:
    return TINY


@pytest.fixture(scope="session")
def all_options() -> tuple[str, ...]:
    return OPTIONS


@pytest.fixture
def tiny_train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``tiny_train(out, *overrides, resume=..., watchers=...)``: the command, with the tiny network."""

    monkeypatch.setattr("u2pl.commands.checks.build_network", build_tiny)
    # The pictures of a run are made from its saved weights.
    monkeypatch.setattr("u2pl.build.trained.build_network", build_tiny)

    def train(out: Path, *overrides: str, **options: Any) -> Any:
        from u2pl.commands.train import train as run_training

        options = {"say": lambda line: None, **options}
        return run_training(load_config("scenes", [*TINY, *overrides]), out, **options)

    return train
