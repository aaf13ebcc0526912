"""The weight of each loss in a configuration reaches the gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from u2pl.commands.train import train
from u2pl.config.overrides import load_config

TINY = (
    *("data.train=4", "data.labeled=2", "data.val=1", "data.height=32", "data.width=32", "data.workers=0"),
    *("network.name=deeplabv3plus", "network.encoder=resnet18", "network.channels=8", "network.low_level_channels=8"),
    *("network.pretrained=false", "network.auxiliary=true", "network.dropout=0", "method.name=supervised"),
    *("train.steps=1", "train.batch_size=2", "train.crop_size=32", "train.weight_decay=0", "train.momentum=0"),
    *("train.accelerator=cpu", "train.precision=fp32", "train.lr=0.01", "train.lr_warmup=0", "train.optimizer=sgd"),
)


def auxiliary_head(out: Path, weight: float) -> torch.Tensor:
    """Its last layer after one step from the same initial weights."""
    train(load_config("scenes", [*TINY, f"method.loss_weights.auxiliary={weight}"]), out, say=lambda line: None)
    weights = load_file(out / "last.safetensors")
    return weights[[name for name in weights if name.startswith("auxiliary.") and name.endswith(".weight")][-1]]


def test_the_step_of_the_auxiliary_head_is_proportional_to_its_weight(tmp_path: Path) -> None:
    initial, half, whole = (auxiliary_head(tmp_path / str(weight), weight) for weight in (0.0, 0.5, 1.0))
    assert (whole - initial).norm() > 0
    assert ((half - initial).norm() / (whole - initial).norm()).item() == pytest.approx(0.5, rel=1e-3)
