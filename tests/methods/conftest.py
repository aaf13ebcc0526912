"""A network small enough to follow by hand."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.structures import SegmentationOutput

CLASSES, DIM = 4, 3


class TinyNetwork(nn.Module):
    """One convolution with batch norm at half the resolution, a classifier, a projection, perhaps further heads."""

    multiple = 2
    corners = False

    def __init__(self, *, projection: bool = True, auxiliary: bool = False, classification: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.Tanh())
        self.classifier = nn.Conv2d(6, CLASSES, 1)
        self.projection = nn.Conv2d(6, DIM, 1) if projection else None
        self.auxiliary = nn.Conv2d(6, CLASSES, 1) if auxiliary else None
        self.calls: list[tuple[bool, int]] = []
        self.classification = nn.Conv2d(6, CLASSES - 1, 1, bias=False) if classification else None
        with torch.no_grad():
            self.classifier.weight.mul_(6)

    def forward(self, image: Tensor, *, dropped: int = 0, complementary: int = 0) -> SegmentationOutput:
        self.calls.append((self.training, len(image)))
        features = plain = self.stem(image)
        if complementary:  # always the same channels, too
            first = torch.tensor([2.0, 0, 2, 0, 2, 0]).view(1, -1, 1, 1)
            rest, one, other = features.split((len(image) - 2 * complementary, complementary, complementary))
            features = torch.cat((rest, one * first, other * (2 - first)))
        if dropped:  # always the same channels, so that it can be followed by hand
            features = torch.cat((features, features[-dropped:] * torch.tensor([2.0, 0, 2, 0, 2, 0]).view(1, -1, 1, 1)))
        coarse = self.classifier(features)
        return SegmentationOutput(
            logits=F.interpolate(coarse, size=image.shape[-2:], mode="bilinear", align_corners=True),
            coarse=coarse,
            embedding=None if self.projection is None else self.projection(features),
            auxiliary=None
            if self.auxiliary is None
            else F.interpolate(self.auxiliary(features), size=image.shape[-2:], mode="bilinear"),
            activation=None if self.classification is None else self.classification(plain),
        )

    def activate(self, image: Tensor) -> Tensor:
        assert self.classification is not None
        return self.classification(self.stem(image))


@pytest.fixture
def tiny_network() -> Callable[..., TinyNetwork]:
    """``tiny_network(seed=0, projection=True, ...)``: a network of 4 classes, embeddings of length 3."""

    def build(seed: int = 0, **options: bool) -> TinyNetwork:
        torch.manual_seed(seed)
        return TinyNetwork(**options)

    return build
