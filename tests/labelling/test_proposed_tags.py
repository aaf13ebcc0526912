"""Proposed tags: of the image prior where it tells classes apart, else of the mask."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from u2pl.labelling.tags import tags_of
from u2pl.networks.image_classifier import ImageClassifier

CLASSES = 5
IMAGE = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Rows(nn.Module):
    """In place of an encoder: one row, whatever the image; notes its size."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.sizes.append(tuple(image.shape))
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        return torch.ones(1, 1)


def classifier(scores: list[float], told: list[bool]) -> ImageClassifier:
    return ImageClassifier(
        Rows(),  # type: ignore[arg-type]
        weight=torch.tensor(scores)[:, None],
        bias=torch.zeros(CLASSES),
        told=torch.tensor(told),
    )


def test_without_a_prior_tags_are_the_classes_of_the_mask() -> None:
    assert tags_of(IMAGE, (3, 1), None) == (1, 3)
    assert tags_of(IMAGE, (), None) == ()


@pytest.mark.parametrize("shown", [(), (0, 3), (0, 1, 2, 3, 4)])
def test_the_prior_decides_among_the_classes_that_it_tells_apart(shown: tuple[int, ...]) -> None:
    likely, half, less = 4.0, 4.0 + math.log(0.51), 4.0 + math.log(0.49)
    prior = classifier([9.0, half, less, likely, 9.0], [False, True, True, True, False])
    expected = [index for index in range(CLASSES) if index in (1, 3) or (index in (0, 4) and index in shown)]
    assert tags_of(IMAGE, shown, prior) == tuple(expected)


def test_a_large_image_is_shrunk_before_it_is_a_float() -> None:
    prior = classifier([0.0] * CLASSES, [True] * CLASSES)
    assert tags_of(torch.zeros(3, 900, 1800, dtype=torch.uint8), (), prior) == (0, 1, 2, 3, 4)
    tags_of(IMAGE, (), prior)
    assert prior.encoder.sizes == [(1, 3, 448, 896), (1, 3, 20, 30)]
