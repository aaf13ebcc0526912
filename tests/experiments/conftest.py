"""Comparisons and ablations of trainings that take a moment, with a network small enough for them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tiny_run import build_tiny

#: Six steps on procedural scenes; the validation scores of different settings differ.
TINY = (
    *("data.train=8", "data.val=2", "data.labeled=3", "data.height=32", "data.width=48", "data.workers=0"),
    *("network.channels=16", "network.low_level_channels=8", "network.embedding_dim=8"),
    *(
        "method.schedule.warmup=0",
        "method.contrast.bank_size=32",
        "method.contrast.keys_per_step=8",
        "method.contrast.negatives=16",
    ),
    *("train.steps=6", "train.batch_size=2", "train.crop_size=32", "train.lr=0.05", "train.optimizer=sgd"),
    *("train.log_every=2", "train.eval_every=0", "train.accelerator=cpu", "train.precision=fp32"),
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def tiny_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("u2pl.commands.checks.build_network", build_tiny)
        patch.setattr("u2pl.build.trained.build_network", build_tiny)
        patch.setattr("u2pl.experiments.running._free_memory", lambda: None)  # takes longer than these trainings
        yield


@pytest.fixture(scope="session")
def tiny_overrides() -> tuple[str, ...]:
    return TINY


@pytest.fixture(scope="session")
def tiny_compare() -> Callable[..., Any]:
    """``tiny_compare(out, *overrides, methods=..., ...)``: records, and what was printed."""

    def run(out: Path, *overrides: str, **options: Any) -> tuple[Any, str]:
        from u2pl.experiments.comparison import compare

        console = Console(file=io.StringIO(), width=200)
        records = compare("scenes", [*TINY, *overrides], out=out, console=console, **options)
        return records, console.file.getvalue()  # type: ignore[attr-defined]

    return run


@pytest.fixture(scope="session")
def tiny_ablate() -> Callable[..., Any]:
    """``tiny_ablate(out, *overrides, axes=..., ...)``: records, and what was printed."""

    def run(out: Path, *overrides: str, **options: Any) -> tuple[Any, str]:
        from u2pl.experiments.ablation import ablate

        console = Console(file=io.StringIO(), width=200)
        records = ablate("scenes", [*TINY, *overrides], out=out, console=console, **options)
        return records, console.file.getvalue()  # type: ignore[attr-defined]

    return run
