"""Where the places of an encoder's maps lie, measured: by which pixel moves a place the most evenly around it."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from u2pl.networks.places import on_corners
from u2pl.networks.resnet import resnet_encoder


def linear(encoder: nn.Module) -> nn.Module:
    """The encoder with equal weights: what a place sees is then spread evenly around its centre."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    return encoder.eval()


def centre(encoder: nn.Module, stride: int) -> float:
    """Offset of a place's centre from the first pixel of its cell, in pixels."""
    side = 16 * stride
    image = torch.full((1, 3, side, side), 1e-4, requires_grad=True)  # far from where an activation saturates
    features = encoder(image)
    features = features.high if hasattr(features, "high") else features[-1]
    assert features.shape[-1] == 16
    features[0, :, 8, 8].sum().backward()
    assert image.grad is not None
    weight = image.grad.abs().sum(dim=(0, 1, 2))
    return ((weight * torch.arange(side)).sum() / weight.sum()).item() - 8 * stride


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_odd_convolutions_are_centred_on_corners(name: str) -> None:
    encoder = smp.encoders.get_encoder(name, weights=None)
    assert on_corners(encoder)
    assert centre(linear(encoder), 32) == pytest.approx(0, abs=3)


def test_our_resnet_is_centred_on_corners() -> None:
    encoder = resnet_encoder("resnet18", output_stride=16)
    assert on_corners(encoder)
    assert centre(linear(encoder), 16) == pytest.approx(0, abs=3)


def test_patches_are_centred_in_the_middle() -> None:
    encoder = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, 4, 2, stride=2))
    assert not on_corners(encoder)
    assert centre(linear(nn.Sequential(encoder, nn.Unflatten(0, (1, 1)))), 8) == pytest.approx(3.5, abs=0.01)


def test_one_sided_padding_is_not_on_corners() -> None:
    """TensorFlow's padding, as EfficientNet has it, moves centres the other way."""
    assert not on_corners(smp.encoders.get_encoder("efficientnet-b0", weights=None))
    assert not on_corners(nn.Conv2d(3, 4, 1))
