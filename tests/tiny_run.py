"""A network small enough to train in a test, and what ends such a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.config.schema import Config
from u2pl.structures import SegmentationOutput


class TinyNetwork(nn.Module):
    """Two layers with batch normalisation and dropout: everything whose state a resumed run needs."""

    multiple = 4
    corners = True

    def __init__(
        self, *, num_classes: int, embedding_dim: int | None = 8, classification: bool = False, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(8, num_classes, 1)
        self.projection = None if embedding_dim is None else nn.Conv2d(8, embedding_dim, 1)
        self.classification = nn.Conv2d(8, num_classes - 1, 1, bias=False) if classification else None

    def forward(self, image: Tensor, dropped: int = 0) -> SegmentationOutput:
        """The last ``dropped`` images follow once more, with half of their features dropped."""
        encoded = self.encoder(image)
        if dropped:
            encoded = torch.cat((encoded, F.dropout2d(encoded[-dropped:], 0.5)))
        features = self.dropout(encoded)
        coarse = self.classifier(features)
        logits = F.interpolate(coarse, size=image.shape[-2:], mode="bilinear")
        return SegmentationOutput(
            logits,
            coarse,
            None if self.projection is None else self.projection(features),
            activation=None if self.classification is None else self.classification(encoded),
        )

    def activate(self, image: Tensor) -> Tensor:
        assert self.classification is not None
        return self.classification(self.encoder(image))

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        return self.encoder.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.classifier.parameters()
        if self.projection is not None:
            yield from self.projection.parameters()
        if self.classification is not None:
            yield from self.classification.parameters()


def build_tiny(config: Config, num_classes: int) -> nn.Module:
    """In place of :func:`u2pl.build.build_network`."""
    dim = 8 if config.method.name in ("u2pl", "weak_u2pl") else None
    return TinyNetwork(num_classes=num_classes, embedding_dim=dim, classification=config.method.name == "weak_u2pl")


class KilledError(Exception):
    """Stands for the kill."""


class KillAt:
    """A watcher that ends the run at a report."""

    def __init__(self, step: int) -> None:
        self.at = step

    def begin(self, steps: int) -> None:
        pass

    def step(self, done: int, losses: Mapping[str, float]) -> None:
        if done >= self.at:
            raise KilledError

    def evaluated(self, done: int, scores: Mapping[str, Any]) -> None:
        pass
