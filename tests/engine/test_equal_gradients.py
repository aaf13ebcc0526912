"""Two processes with two images each come to the losses and gradients of one process with all four.

Only a first step is compared. In the second, rounding has grown: weights that differ by 1e-7 change its gradients by
2 %.
"""

from __future__ import annotations

import json
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
COMMON = (
    *("network.name=deeplabv3plus", "network.encoder=resnet18", "network.channels=16", "network.low_level_channels=8"),
    *("network.auxiliary=true", "network.dropout=0", "network.pretrained=false"),
    *("method.mixing.name=none", "method.schedule.warmup=0", "method.schedule.ramp=0"),
)
EQUAL = {
    "supervised": ("method.name=supervised",),
    "ohem": ("method.name=supervised", "method.supervised_loss.name=ohem", "method.supervised_loss.min_kept=3000"),
    "balanced": ("method.name=supervised", "method.supervised_loss.name=balanced"),
    "mean teacher": ("method.name=mean_teacher",),
    "mean teacher, other parts": (
        *("method.name=mean_teacher", "method.weighting.name=confident_share", "method.weighting.threshold=0.5"),
        *("method.unsupervised_loss.name=symmetric", "method.reliability.class_wise=true"),
        *("method.alignment=true", "method.loss_weights.negative=1"),
    ),
    "masked consistency": (
        *("method.name=mean_teacher", "method.masked_consistency.threshold=0.5"),
        "method.masked_consistency.ratio=0",  # each process hides other patches
    ),
    "fixmatch": ("method.name=fixmatch", "method.threshold=0.5"),
}
#: Each process normalises its own two images.
APART = {"own batch norm": ("method.name=supervised", "train.sync_batch_norm=false")}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Any]]:
    """By the number of processes: what each of them has kept."""
    out = tmp_path_factory.mktemp("steps")
    cases = json.dumps({name: [*COMMON, *case] for name, case in (EQUAL | APART).items()})
    found = {}
    for devices in (1, 2):
        command = [sys.executable, str(SCRIPT), str(out), str(devices), cases]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr
        found[devices] = [torch.load(out / f"{devices}-{rank}.pt", weights_only=True) for rank in range(devices)]
    return found


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Of all tensors together, beside the length of the first."""
    assert one.keys() == other.keys()
    flat = [torch.cat([values[name].flatten().double() for name in one]) for values in (one, other)]
    return float((flat[0] - flat[1]).norm() / flat[0].norm())


@pytest.mark.parametrize("case", EQUAL)
def test_losses_and_gradients_are_those_of_one_process(steps: dict[int, list[Any]], case: str) -> None:
    one = steps[1][0][case]
    assert min(one["losses"].values()) > 0
    for process in steps[2]:
        assert process[case]["losses"] == pytest.approx(one["losses"], rel=1e-5)
        assert distance(one["gradients"], process[case]["gradients"]) < 1e-5
        assert distance(one["statistics"], process[case]["statistics"]) < 1e-5


def test_the_gradients_of_processes_that_normalise_apart_differ(steps: dict[int, list[Any]]) -> None:
    """So the test above can tell."""
    one, two = steps[1][0]["own batch norm"], steps[2][0]["own batch norm"]
    assert distance(one["gradients"], two["gradients"]) > 1e-2
