"""TensorFlow's padding as a constant, against timm's."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from u2pl.networks.same_padding import ConstantSame


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_same_padding(kernel: int, stride: int) -> None:
    layers = nn.Sequential(Conv2dSame(3, 4, kernel, stride=stride))
    constant = copy.deepcopy(layers)
    ConstantSame.adopt(constant)
    assert type(constant[0]) is ConstantSame
    for height, width in ((4, 8), (32, 64), (12, 20)):
        image = torch.rand(2, 3, height, width)
        assert torch.equal(constant(image), layers(image))
