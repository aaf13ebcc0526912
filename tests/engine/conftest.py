"""A network small enough to train in a test, and runs of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.config import Config
from u2pl.recipes import load_config
from u2pl.structures import SegmentationOutput

#: A run of a moment on procedural scenes: four steps of supervised training, then twelve with teacher and bank.
TINY = (
    *("data.train=8", "data.val=3", "data.labeled=3", "data.height=32", "data.width=48", "data.workers=0"),
    *("network.channels=16", "network.low_level_channels=8", "network.embedding_dim=8"),
    *("method.warmup=0.25", "method.ramp=0.3", "method.bank_size=32", "method.keys_per_step=8", "method.negatives=16"),
    "method.min_probability=0.05",  # a network that has learned nothing yet has anchors, too
    *("train.steps=16", "train.batch_size=2", "train.crop_size=32", "train.lr_warmup=2", "train.head_lr_factor=3"),
    *("train.accelerator=cpu", "train.precision=fp32"),
)


class TinyNetwork(nn.Module):
    """Two layers with batch normalisation and dropout: everything whose state a resumed run needs."""

    def __init__(self, *, num_classes: int, embedding_dim: int | None = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Conv2d(8, num_classes, 1)
        self.projection = None if embedding_dim is None else nn.Conv2d(8, embedding_dim, 1)

    def forward(self, image: Tensor) -> SegmentationOutput:
        features = self.dropout(self.encoder(image))
        coarse = self.classifier(features)
        logits = F.interpolate(coarse, size=image.shape[-2:], mode="bilinear")
        return SegmentationOutput(logits, coarse, None if self.projection is None else self.projection(features))

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        return self.encoder.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.classifier.parameters()
        if self.projection is not None:
            yield from self.projection.parameters()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_network() -> Callable[..., nn.Module]:
    return TinyNetwork


@pytest.fixture(scope="session")
def tiny_overrides() -> tuple[str, ...]:
    return TINY


@pytest.fixture
def tiny_train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``tiny_train(out, *overrides, resume=..., watchers=...)``: :func:`u2pl.run.train` of the tiny network."""

    def build(config: Config, num_classes: int) -> nn.Module:
        return TinyNetwork(num_classes=num_classes, embedding_dim=8 if config.method.name == "u2pl" else None)

    monkeypatch.setattr("u2pl.run.build_network", build)
    monkeypatch.setattr("u2pl.predictor.build_network", build)  # the pictures of a run are made from its saved weights

    def train(out: Path, *overrides: str, **options: Any) -> Any:
        from u2pl.run import train as run_training

        return run_training(load_config("scenes", [*TINY, *overrides]), out, say=lambda line: None, **options)

    return train
