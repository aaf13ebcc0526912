"""The classification head on the encoder's last features, which image-level tags train."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from encoder_kinds import STRIDE, build, last_features
from u2pl.networks import smp_network


@pytest.mark.parametrize("name", STRIDE)
def test_activations_are_a_linear_classifier_at_each_place(name: str) -> None:
    network = build(name, classification=True).eval()
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        output = network(image)
        features, weight = last_features(network, image), network.classification.weight.flatten(1)
        assert output.activation.shape == (2, 4, 64 // STRIDE[name], 96 // STRIDE[name])
        for b in range(2):
            for k in range(4):
                for y, x in ((0, 0), (1, 2)):
                    expected = sum(
                        w * f for w, f in zip(weight[k].tolist(), features[b, :, y, x].tolist(), strict=True)
                    )
                    assert output.activation[b, k, y, x].item() == pytest.approx(expected, abs=1e-4)
        torch.testing.assert_close(output.activation.mean(dim=(2, 3)), features.mean(dim=(2, 3)) @ weight.T)
        torch.testing.assert_close(network.activate(image), output.activation)


@pytest.mark.parametrize("name", STRIDE)
def test_without_it_nothing_changes(name: str) -> None:
    network, plain = build(name, classification=True).eval(), build(name).eval()
    image = torch.rand(1, 3, 64, 64)
    extra = set(network.state_dict()) - set(plain.state_dict())
    assert extra == {"classification.weight"}
    assert all(torch.equal(network.state_dict()[key], value) for key, value in plain.state_dict().items())
    with torch.no_grad():
        seen, expected = network(image), plain(image)
        assert expected.activation is None
        assert torch.equal(seen.logits, expected.logits)
        assert torch.equal(seen.embedding, expected.embedding)
    head = {id(parameter) for parameter in network.head_parameters()}
    assert id(network.classification.weight) in head


def test_padding_is_cut_off_and_dropped_features_are_not_classified() -> None:
    network = build("fpn", classification=True).eval()
    image = torch.rand(2, 3, 70, 40)
    with torch.no_grad():
        output = network(image, dropped=1)
        assert (len(output.logits), len(output.activation)) == (3, 2)
        assert output.activation.shape[-2:] == (3, 2)  # 70 and 40 are 96 and 64 with their padding
        assert network(image[..., :33]).activation.shape[-2:] == (3, 2)
        assert network(image[..., :32]).activation.shape[-2:] == (3, 1)
        torch.testing.assert_close(network.activate(image), output.activation)


@pytest.mark.parametrize("name", ["deeplabv3plus", "fpn"])
def test_only_encoder_and_head_get_a_gradient_of_it(name: str) -> None:
    network: nn.Module = build(name, classification=True)
    network(torch.rand(2, 3, 64, 64)).activation.mean().backward()
    with_gradient = {key.split(".")[0] for key, p in network.named_parameters() if p.grad is not None}
    assert with_gradient == ({"encoder"} if name == "deeplabv3plus" else {"model"}) | {"classification"}
    if name == "fpn":
        assert all(p.grad is None for p in network.model.decoder.parameters())


def test_a_whole_cell_of_padding_is_cut_off() -> None:
    """PAN pads small images to several cells."""
    network = smp_network(
        num_classes=4, architecture="PAN", encoder="resnet18", embedding_dim=None, classification=True
    ).eval()
    image = torch.rand(1, 3, 40, 70)
    with torch.no_grad():
        padded = network.encode(image).features[-1].shape[-2:]
        for activation in (network(image).activation, network.activate(image)):
            assert activation.shape[-2:] == (-(-40 // network.multiple), -(-70 // network.multiple))
            assert activation.shape[-2:] != padded
