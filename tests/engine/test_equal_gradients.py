"""Two processes with two images each come to the losses and gradients of one process with all four."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("steps_of_processes.py")

#: A network with batch normalisation in every layer and an auxiliary head. What is drawn at random is left out:
#: dropout, and boxes of a mixing.
NETWORK = (
    *("network.name=deeplabv3plus", "network.encoder=resnet18", "network.channels=16", "network.low_level_channels=8"),
    *("network.auxiliary=true", "network.dropout=0", "network.pretrained=false"),
    *("method.mixing.name=none", "method.schedule.warmup=0", "train.lr=0.001"),
)
CASES = {
    "supervised": ("method.name=supervised",),
    "ohem": ("method.name=supervised", "method.supervised_loss.name=ohem", "method.supervised_loss.min_kept=3000"),
    "balanced": ("method.name=supervised", "method.supervised_loss.name=balanced"),
    "mean teacher": ("method.name=mean_teacher",),
    "mean teacher, other parts": (
        *("method.name=mean_teacher", "method.weighting.name=confident_share", "method.weighting.threshold=0.11"),
        *("method.unsupervised_loss.name=symmetric", "method.reliability.class_wise=true"),
        *("method.alignment=true", "method.loss_weights.negative=1"),
    ),
    "fixmatch": ("method.name=fixmatch", "method.threshold=0.105"),
}


def steps_of(out: Path, devices: int, *overrides: str) -> list[dict[str, Any]]:
    """What each process has kept."""
    command = [sys.executable, str(SCRIPT), str(out), str(devices), *NETWORK, *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(out / f"{devices}-{rank}.pt", weights_only=True) for rank in range(devices)]


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Of all gradients or weights, beside the length of the first."""
    assert one.keys() == other.keys()
    flat = [torch.cat([values[name].flatten().double() for name in one]) for values in (one, other)]
    return float((flat[0] - flat[1]).norm() / flat[0].norm())


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_one_process(tmp_path: Path, case: str) -> None:
    (one,) = steps_of(tmp_path, 1, *CASES[case])
    two = steps_of(tmp_path, 2, *CASES[case])
    first = one["steps"][0]
    assert min(first["losses"].values()) > 0
    for process in two:
        ours = process["steps"][0]
        for name, loss in first["losses"].items():
            assert ours["losses"][name].item() == pytest.approx(loss.item(), rel=1e-5), name
        assert distance(first["gradients"], ours["gradients"]) < 1e-5
        for before, now in zip(one["steps"], process["steps"], strict=True):
            for name, loss in before["losses"].items():
                assert now["losses"][name].item() == pytest.approx(loss.item(), rel=1e-3), name
        assert distance(one["state"], process["state"]) < 1e-4  # running statistics included


def test_without_shared_batch_norm_the_losses_differ(tmp_path: Path) -> None:
    """The test above can tell: each process then normalises its own two images."""
    (one,) = steps_of(tmp_path, 1, *CASES["supervised"])
    two = steps_of(tmp_path, 2, *CASES["supervised"], "train.sync_batch_norm=false")
    assert distance(one["steps"][0]["gradients"], two[0]["steps"][0]["gradients"]) > 1e-3
