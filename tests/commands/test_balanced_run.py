"""A run whose labels and pseudo-labels are balanced corrects its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import u2pl.commands.train
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.methods.extras.class_weights import ClassWeightCorrection

TINY = (
    *("data.train=6", "data.val=2", "data.labeled=2", "data.height=48", "data.width=64", "data.workers=0"),
    *("train.steps=4", "train.batch_size=2", "train.crop_size=32", "train.eval_every=0", "method.schedule.warmup=0"),
    *("network.channels=8", "network.low_level_channels=8", "network.embedding_dim=6"),
    *("method.contrast.bank_size=100", "method.contrast.keys_per_step=10", "train.precision=fp32"),
)


@pytest.mark.parametrize(("name", "corrected"), [("u2pl", True), ("mean_teacher", True), ("supervised", False)])
def test_the_teacher_of_a_run_with_balanced_losses(
    name: str, corrected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods: list[Any] = []
    fit = u2pl.commands.train.fit

    def keeping(*given: Any, method: Any, **parts: Any) -> Any:
        methods.append(method)
        return fit(*given, method=method, **parts)

    monkeypatch.setattr("u2pl.commands.train.fit", keeping)
    balanced = ("method.supervised_loss.name=balanced", "method.unsupervised_loss.name=balanced")
    config = load_config("scenes", [*TINY, *balanced, f"method.name={name}"])
    source = train(config, tmp_path / "run", say=lambda line: None).source
    refiners = getattr(methods[0], "refiners", ())
    corrections = [refiner for refiner in refiners if isinstance(refiner, ClassWeightCorrection)]
    assert len(corrections) == corrected
    if not corrected:
        return
    masks = torch.cat([sample.mask().flatten() for sample in source.labeled]).long()
    pixels = torch.bincount(masks[masks != 255], minlength=len(source.classes)).double()
    expected = (1.02 + pixels / pixels.sum()).log().log().float()[None]
    torch.testing.assert_close(corrections[0].shift, expected)
