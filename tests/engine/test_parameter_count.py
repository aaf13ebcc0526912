"""Parameters in use against heads counted by hand, and against gradients."""

from __future__ import annotations

import torch
from torch import nn

from u2pl.engine.parameter_count import inference_parameters, trained_parameters, training_parameters
from u2pl.networks import deeplabv3plus, smp_network


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_heads_that_only_train_are_not_in_use() -> None:
    network = deeplabv3plus(num_classes=5, encoder="resnet18", channels=16, embedding_dim=8, auxiliary=True)
    network.encoder.requires_grad_(False)  # frozen is in use, too
    assert network.projection is not None
    assert network.auxiliary is not None
    used = inference_parameters(network, height=64, width=48)
    assert training_parameters(network) == count(network)
    assert trained_parameters(network) == count(network) - count(network.encoder)
    assert used == count(network) - count(network.projection) - count(network.auxiliary)
    assert network.training
    assert not next(network.encoder.parameters()).requires_grad
    assert next(network.parameters()).device.type == "cpu"
    bare = deeplabv3plus(num_classes=5, encoder="resnet18", channels=16, embedding_dim=None)
    assert inference_parameters(bare, height=64, width=48) == count(bare) == used


def test_a_classifier_is_in_use_as_it_rules_classes_out() -> None:
    network = smp_network(num_classes=4, architecture="FPN", embedding_dim=None, classification=True)
    assert inference_parameters(network, height=64, width=48) == count(network)


def test_what_the_scores_depend_on_has_a_gradient() -> None:
    network = smp_network(num_classes=3, architecture="Unet", encoder="mobilenet_v2", embedding_dim=8)
    used = inference_parameters(network, height=32, width=64)
    with torch.no_grad():
        for parameter in network.parameters():  # no gradient is zero by chance of the initial weights
            parameter.add_(torch.rand_like(parameter) * 0.1)
    network.eval()
    network(torch.rand(1, 3, 32, 64)).logits.sum().backward()
    assert used == sum(parameter.numel() for parameter in network.parameters() if parameter.grad is not None)
    assert used < training_parameters(network)
