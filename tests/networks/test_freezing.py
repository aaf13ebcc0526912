"""What is frozen never changes, drops nothing and needs no gradient; the rest trains as it would beside it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from encoder_kinds import STRIDE, build
from test_stages import pyramid
from u2pl.errors import InputError
from u2pl.networks import smp_network
from u2pl.networks.freezing import FreezableNetwork, frozen_parts

KINDS = list(STRIDE)
IMAGE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def total(network: Any, image: Tensor = IMAGE) -> Tensor:
    """A scalar on which every output depends."""
    output = network(image)
    return sum(value.float().square().mean() for value in vars(output).values() if value is not None)


def frozen_names(network: nn.Module) -> set[str]:
    """Tensors that must not change: all of the encoder up to the frozen stage."""
    network_frozen = network.frozen
    assert network_frozen is not None
    inside = {id(part) for part in frozen_parts(network) if isinstance(part, nn.Parameter)}
    for part in frozen_parts(network):
        if isinstance(part, nn.Module):
            inside |= {id(tensor) for tensor in (*part.parameters(), *part.buffers())}
    return {name for name, each in (*network.named_parameters(), *network.named_buffers()) if id(each) in inside}


@pytest.mark.parametrize("stages", [True, 1, 2])
@pytest.mark.parametrize("name", KINDS)
def test_frozen_tensors_never_change_and_all_others_do(name: str, stages: bool | int) -> None:
    network = build(name, classification=True)
    network.freeze(stages)
    still = frozen_names(network)
    before = {key: value.clone() for key, value in (*network.named_parameters(), *network.named_buffers())}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        network.eval()
        network.train()
        total(network).backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = {
        key
        for key, value in (*network.named_parameters(), *network.named_buffers())
        if not torch.equal(value, before[key])
    }
    constant = {"normalize.mean", "normalize.std"} - changed
    assert changed == set(before) - still - constant
    encoder = {key for key in before if key.startswith(("encoder.", "model.encoder."))}
    assert still == encoder if stages is True else set() < still < encoder
    assert len(optimizer.state) == sum(each.requires_grad for each in network.parameters())


@pytest.mark.parametrize("name", KINDS)
def test_frozen_maps_are_the_same_in_training(name: str) -> None:
    """Also with layers that drop something in training."""
    drops = {"dpt": {"drop_path_rate": 0.5, "proj_drop_rate": 0.5}}.get(name, {})
    network = build(name, **drops)
    network.freeze(2)
    maps = pyramid(network.eval(), IMAGE)
    network.train()
    again = pyramid(network, IMAGE)
    assert all(torch.equal(*pair) for pair in zip(maps[:2], again[:2], strict=True))
    assert all(each.grad_fn is None for each in again[:2])  # autograd keeps nothing of them
    assert not any(torch.equal(*pair) for pair in zip(maps[2:], again[2:], strict=True))
    assert all(each.grad_fn is not None for each in again[2:])


@pytest.mark.parametrize("stages", [True, 2])
@pytest.mark.parametrize("name", KINDS)
def test_gradients_of_the_rest_are_those_of_a_network_that_trains_as_a_whole(name: str, stages: bool | int) -> None:
    network = build(name)
    plain = copy.deepcopy(network).train()
    network.freeze(stages)
    assert network.frozen is not None
    for module in network.frozen.modules:
        plain.get_submodule(module).eval()
    torch.manual_seed(1)
    total(plain).backward()
    torch.manual_seed(1)
    total(network.train()).backward()
    trained = 0
    for (key, own), other in zip(network.named_parameters(), plain.parameters(), strict=True):
        if own.requires_grad:
            trained += 1
            assert torch.equal(own.grad, other.grad), key
        else:
            assert own.grad is None
    assert 0 < trained < len(list(plain.parameters()))


def test_stages_are_counted_from_the_input() -> None:
    network = build("deeplabv3plus")
    network.freeze(3)
    frozen = {key.split(".")[1] for key in frozen_names(network)}
    assert frozen == {"conv1", "bn1", "layer1", "layer2"}
    assert network.frozen is not None
    assert network.frozen.modules[0] == "encoder.conv1"
    assert not network.frozen.whole


def test_all_stages_are_the_whole_encoder() -> None:
    one, other = build("fpn"), build("fpn")
    one.freeze(5)
    other.freeze(True)
    assert one.frozen == other.frozen
    assert one.frozen.whole
    assert one.frozen.modules == ("encoder",)
    assert one.training
    assert not any(module.training for module in one.encoder.modules())  # at once


def test_nothing_is_frozen_without_the_key() -> None:
    network = build("fpn")
    network.freeze(False)
    assert network.frozen is None
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert list(frozen_parts(network)) == []
    assert list(frozen_parts(nn.Conv2d(3, 4, 1))) == []


def test_a_network_in_evaluation_mode_stays_in_it() -> None:
    network = build("fpn").eval()
    network.freeze(2)
    assert not any(module.training for module in network.modules())


def test_a_copy_stays_frozen() -> None:
    network = build("segformer")
    network.freeze(2)
    shadow = copy.deepcopy(network).to("meta").train()
    assert shadow.training
    assert not shadow.encoder.block1.training
    assert shadow.encoder.block3.training
    assert {key for key, each in shadow.named_parameters() if not each.requires_grad} == {
        key for key, each in network.named_parameters() if not each.requires_grad
    }


@pytest.mark.parametrize(("name", "stages", "there"), [("fpn", 6, 5), ("segformer", 5, 4), ("deeplabv3plus", 64, 5)])
def test_too_many_stages_are_refused_with_their_number(name: str, stages: int, there: int) -> None:
    told = rf"^network\.freeze: the encoder has {there} stages, not {stages}; give 1 to {there}, or true for all of it$"
    with pytest.raises(InputError, match=told):
        build(name).freeze(stages)


def test_an_encoder_without_stages_can_be_frozen_as_a_whole() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> list[Tensor]:
            return [x * self.weight * x.mean().item()]

    network = FreezableNetwork()
    network.encoder = Odd()
    with pytest.raises(InputError, match=r"^network\.freeze: the stages of this encoder cannot be told; true freezes"):
        network.freeze(1)
    network.freeze(True)
    assert not network.encoder.weight.requires_grad
    with pytest.raises(TypeError, match="FreezableNetwork has no encoder"):
        network.encode(IMAGE)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_frozen_layers_build_on_the_meta_device(auxiliary: bool) -> None:
    with torch.device("meta"):
        network = build("deeplabv3plus", auxiliary=auxiliary)
        network.freeze(2)
        other = smp_network(num_classes=3, architecture="FPN", encoder="mobilenet_v2")
        other.freeze(2)
    assert not network.encoder.layer1[0].conv1.weight.requires_grad
    assert next(other.parameters()).device.type == "meta"
