"""Whole images, described by the encoder; the network is left as it was."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.engine.image_features import SIDE, image_features


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
    """Tells the mean colour and the size of what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[bool] = []

    def describe(self, image: Tensor) -> Tensor:
        self.seen.append(self.training)
        size = torch.tensor([image.shape[-2:]]).float()
        return torch.cat((F.adaptive_avg_pool2d(image, 1).flatten(1)[:, :1] * self.scale, size), dim=1)


def test_whole_images_are_described_at_one_size() -> None:
    network, told = Looking().train(), []
    samples = [Plain(255, 20, 30), Plain(0, 512, 256), Plain(51, 300, 600)]
    found = image_features(
        Fabric(accelerator="cpu", devices=1), network, samples, progress=lambda *done: told.append(done)
    )
    assert found[:, 1:].tolist() == [[SIDE, 384], [512, SIDE], [SIDE, 512]]
    torch.testing.assert_close(found[:, 0], torch.tensor([1.0, 0.0, 0.2]))
    assert not found.requires_grad
    assert network.seen == [False] * 3
    assert network.training
    assert told == [(1, 3), (2, 3), (3, 3)]
