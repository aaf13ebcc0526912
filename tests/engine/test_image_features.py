"""Whole images, described by the encoder; the network is left as it was."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.engine.image_features import SIDE, image_features
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


class Looking(nn.Module):
    """Tells the colours and the size of what it sees."""

    def __init__(self, vocabulary: nn.Module | None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.vocabulary = vocabulary
        self.seen: list[bool] = []
        self.sizes: list[list[int]] = []

    def encode(self, image: Tensor) -> Tensor:
        self.seen.append(self.training)
        self.sizes.append(list(image.shape[-2:]))
        return torch.cat((image * self.scale, 1 - image), dim=1)


def look(vocabulary: nn.Module | None) -> tuple[Tensor, Looking]:
    network, told = Looking(vocabulary).train(), []
    samples = [Plain(255, 20, 30), Plain(0, 512, 256), Plain(51, 300, 600)]
    found = image_features(
        Fabric(accelerator="cpu", devices=1), network, samples, progress=lambda *done: told.append(done)
    )
    assert network.sizes == [[SIDE, 336], [448, SIDE], [SIDE, 448]]
    assert network.seen == [False] * 3
    assert network.training
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert not found.requires_grad
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    return found, network


def test_whole_images_are_described_at_one_size() -> None:
    """By mean features, standardised over images."""
    found, _ = look(None)
    colour = torch.tensor([1.0, 0.0, 0.2])
    standard = (colour - 0.4) / (colour.std() + 1e-3)
    expected = torch.stack([standard] * 3 + [-standard] * 3, dim=1)
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True))


def test_a_classifier_says_what_they_show() -> None:
    """Roots of probabilities: products are Bhattacharyya coefficients."""
    vocabulary = Vocabulary(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.rand(4))
    found, _ = look(vocabulary)
    for row, colour in zip(found, (1.0, 0.0, 0.2), strict=True):
        logits = vocabulary.weight @ torch.tensor([colour] * 3 + [1 - colour] * 3) + vocabulary.bias
        torch.testing.assert_close(row**2, logits.softmax(dim=0))
