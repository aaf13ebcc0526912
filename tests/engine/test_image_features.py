"""The images of a data set, seen as a whole; no mask is read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.engine.image_features import image_features
from u2pl.networks.image_encoder import ImageEncoder
from u2pl.networks.vocabulary import Vocabulary


@dataclass(frozen=True)
class Plain:
    """An image of one colour."""

    value: int
    height: int
    width: int
    name = "plain"
    has_mask = False
    tags = None

    def image(self) -> Tensor:
        return torch.full((3, self.height, self.width), self.value, dtype=torch.uint8)

    def mask(self) -> Tensor:
        raise AssertionError("a mask was read")


SAMPLES = [Plain(255, 20, 30), Plain(0, 512, 256), Plain(51, 300, 600)]


def look(vocabulary: Vocabulary | None) -> tuple[Tensor, ImageEncoder]:
    torch.manual_seed(0)
    encoder = ImageEncoder(
        normalize=nn.Identity(), encoder=nn.Conv2d(3, 6, 8, stride=8), last=lambda x: x, vocabulary=vocabulary
    )
    told: list[tuple[int, int]] = []
    found = image_features(
        Fabric(accelerator="cpu", devices=1), encoder, SAMPLES, progress=lambda *done: told.append(done)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert not found.requires_grad
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    return found, encoder


def test_images_are_compared_by_how_they_differ() -> None:
    found, encoder = look(None)
    described = torch.cat([encoder.described(sample.image().float()[None] / 255) for sample in SAMPLES])
    expected = (described - described.mean(dim=0)) / (described.std(dim=0) + 1e-3)
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True))
    for sample, row in zip(SAMPLES, found, strict=True):
        torch.testing.assert_close(encoder(sample.image().float()[None] / 255)[0], row)


def test_by_a_classifier_as_they_are() -> None:
    found, encoder = look(Vocabulary(torch.rand(4, 6), torch.rand(4)))
    torch.testing.assert_close(found[1:2], encoder(SAMPLES[1].image().float()[None] / 255))
