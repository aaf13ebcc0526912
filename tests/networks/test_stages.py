"""The stages of an encoder against the slow way: change one parameter and look which features follow."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from encoder_kinds import build
from u2pl.networks import smp_network
from u2pl.networks.stages import stages_of


def pyramid(network: Any, image: Tensor) -> list[Tensor]:
    """One map for each stage, lowest first."""
    x = network.normalize(image)
    if not hasattr(network, "model"):  # the stem and the four layers of our ResNet
        encoder = network.encoder
        maps = [encoder.act1(encoder.bn1(encoder.conv1(x)))]
        maps.append(encoder.layer1(encoder.maxpool(maps[0])))
        for layer in (encoder.layer2, encoder.layer3, encoder.layer4):
            maps.append(layer(maps[-1]))
        return maps
    features = network.encoder(x)
    if isinstance(features, tuple):
        return features[0]
    return [each for each in features if each.numel() and each.shape != x.shape]


def network_of(name: str) -> Any:
    if "/" not in name:
        return build(name)
    architecture, encoder = name.split("/")
    torch.manual_seed(0)
    return smp_network(num_classes=5, architecture=architecture, encoder=encoder, embedding_dim=None)


#: Name -> number of stages.
KINDS = {"deeplabv3plus": 5, "fpn": 5, "segformer": 4, "dpt": 4, "FPN/tu-convnext_atto": 4, "Unet/resnet18": 5}


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_a_stage_is_all_that_its_map_depends_on(name: str) -> None:
    network = network_of(name).eval()
    stages = stages_of(network.encoder, side=64)
    assert stages is not None
    assert len(stages) == KINDS[name]
    image = torch.rand(1, 3, 64, 64)
    before = pyramid(network, image)
    for parameter, values in network.encoder.named_parameters():
        kept = values.clone()
        values.add_(torch.randn_like(values))
        after = pyramid(network, image)
        values.copy_(kept)
        for stage, old, new in zip(stages, before, after, strict=True):
            assert (parameter in stage.parameters) == (not torch.equal(old, new)), parameter


@pytest.mark.parametrize("name", KINDS)
def test_modules_of_a_stage_are_whole_and_not_inside_of_each_other(name: str) -> None:
    encoder = network_of(name).encoder
    stages = stages_of(encoder, side=64)
    assert stages is not None
    assert set(stages[-1].parameters) == {each for each, _ in encoder.named_parameters()}
    for stage in stages:
        assert len({*stage.modules}) == len(stage.modules) > 0
        for module in stage.modules:
            inside = {f"{module}.{each}".lstrip(".") for each, _ in encoder.get_submodule(module).named_parameters()}
            assert inside <= set(stage.parameters)
            assert not any(other.startswith(f"{module}.") for other in stage.modules)
    for lower, upper in pairwise(stages):
        assert set(lower.parameters) < set(upper.parameters)


def test_an_encoder_of_one_image_size_has_stages_too() -> None:
    encoder = smp_network(num_classes=5, architecture="FPN", encoder="tu-swin_tiny_patch4_window7_224").encoder
    stages = stages_of(encoder, side=64)
    assert stages is not None
    assert stages[0].modules == ("model.patch_embed", "model.layers_0")


def test_the_encoder_is_left_as_it_was() -> None:
    encoder = build("fpn").eval().encoder
    encoder.requires_grad_(False)
    assert len(stages_of(encoder, side=64) or ()) == 5
    assert all(value.device.type == "cpu" and not value.requires_grad for value in encoder.parameters())
    assert not any(module.training or module._forward_hooks for module in encoder.modules())


def test_an_encoder_that_computes_with_values_has_no_stages_that_can_be_told() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [x * x.mean().item()]

    assert stages_of(Odd(), side=64) is None
