"""A network gets images, or what its encoder made of them: the output is the same."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from encoder_kinds import STRIDE, build
from u2pl.networks import smp_network
from u2pl.networks.encoded import Encoded
from u2pl.networks.resnet import Features
from u2pl.structures import SegmentationOutput


def assert_equal(one: SegmentationOutput, other: SegmentationOutput) -> None:
    for field in fields(SegmentationOutput):
        values = getattr(one, field.name), getattr(other, field.name)
        assert values == (None, None) if values[0] is None else torch.equal(*values), field.name


@pytest.mark.parametrize("dropped", [0, 1])
@pytest.mark.parametrize("size", [(64, 64), (50, 70)])
@pytest.mark.parametrize("name", STRIDE)
@torch.no_grad()
def test_features_in_place_of_images(name: str, size: tuple[int, int], dropped: int) -> None:
    network, image = build(name, classification=True).eval(), torch.rand(2, 3, *size)
    outputs = []
    for given in (image, network.encode(image)):
        torch.manual_seed(0)
        outputs.append(network(given, dropped=dropped))
    assert_equal(*outputs)
    assert outputs[0].logits.shape == (2 + dropped, 5, *size)


def leaves(features: Any) -> list[Tensor]:
    if isinstance(features, Tensor):
        return [features]
    return [] if features is None else [leaf for part in features for leaf in leaves(part)]


@pytest.mark.parametrize("name", STRIDE)
@torch.no_grad()
def test_batches_are_joined_part_by_part(name: str) -> None:
    network, image = build(name).eval(), torch.rand(3, 3, 50, 70)
    parts = [network.encode(image[:1]), network.encode(image[1:])]
    whole, joined = network.encode(image), Encoded.cat(parts)
    assert type(joined.features) is type(whole.features)
    assert (joined.size, joined.padded) == (whole.size, whole.padded)
    assert len(leaves(joined.features)) == len(leaves(whole.features))
    for one, first, second in zip(*map(leaves, (joined.features, *(p.features for p in parts))), strict=True):
        assert torch.equal(one, torch.cat((first, second)))
    torch.testing.assert_close(network(joined).logits, network(image).logits)
    assert Encoded.cat(parts[:1]) is parts[0]


def test_kinds_of_containers() -> None:
    def encoded(value: float) -> Encoded:
        tensor = torch.full((1, 1, 1, 1), value)
        return Encoded(([tensor, tensor], [None, None], Features(tensor, tensor, tensor)), size=(3, 4), padded=(4, 4))

    first, second, third = Encoded.cat([encoded(1), encoded(2)]).features
    assert [each.flatten().tolist() for each in first] == [[1, 2], [1, 2]]
    assert second == [None, None]
    assert isinstance(third, Features)
    assert third.high.flatten().tolist() == [1, 2]


@pytest.mark.parametrize("architecture", [each.__name__ for each in smp.MODEL_ARCHITECTURES_MAPPING.values()])
def test_no_decoder_writes_into_the_features(architecture: str) -> None:
    """They may be decoded again."""
    encoder = "tu-vit_tiny_patch16_224" if architecture == "DPT" else "resnet18"
    network = smp_network(num_classes=3, architecture=architecture, encoder=encoder, embedding_dim=4)
    network.freeze(True)
    with torch.no_grad():
        encoded = network.encode(torch.rand(2, 3, 64, 64))
    before = [leaf.clone() for leaf in leaves(encoded.features)]
    output = network.train()(encoded)
    (output.logits.sum() + output.embedding.sum()).backward()
    assert all(torch.equal(*pair) for pair in zip(before, leaves(encoded.features), strict=True))
