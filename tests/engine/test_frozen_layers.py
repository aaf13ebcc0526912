"""What several processes exchange leaves frozen layers alone."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from u2pl.engine.fit import share_buffers
from u2pl.engine.machine import share_batch_norm
from u2pl.engine.unreached import unreached
from u2pl.networks import deeplabv3plus


def network_of(stages: bool | int) -> Any:
    torch.manual_seed(0)
    network = deeplabv3plus(num_classes=4, encoder="resnet18", channels=8, low_level_channels=4, embedding_dim=6)
    network.train()(torch.rand(2, 3, 64, 64))
    network.freeze(stages)
    return network


def frozen(name: str, stages: bool | int) -> bool:
    return name.startswith("encoder." if stages is True else ("encoder.conv1", "encoder.bn1", "encoder.layer1"))


@pytest.mark.parametrize("stages", [True, 2, False])
def test_statistics_of_frozen_layers_are_not_averaged(stages: bool | int) -> None:
    """An average of equal numbers may round."""
    network = network_of(stages)
    before = {name: each.clone() for name, each in network.named_buffers()}

    def rounded(flat: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "mean"
        return flat * 1.001

    share_buffers(SimpleNamespace(world_size=3, all_reduce=rounded), network)  # type: ignore[arg-type]
    for name, value in network.named_buffers():
        still = (stages and frozen(name, stages)) or not value.is_floating_point()
        torch.testing.assert_close(value, before[name] * (1 if still else 1.001), rtol=0, atol=0)


@pytest.mark.parametrize("device", ["cpu", "cuda"])  # of cuda, only the kind of layer matters here
@pytest.mark.parametrize("stages", [True, 2, False])
def test_frozen_layers_are_not_synchronised(stages: bool | int, device: str) -> None:
    network = network_of(stages)
    kinds = {name: type(each) for name, each in network.named_modules() if isinstance(each, nn.BatchNorm2d)}
    tensors = {name: each.data_ptr() for name, each in network.state_dict().items()}
    share_batch_norm(network, torch.device(device))
    assert {name: each.data_ptr() for name, each in network.state_dict().items()} == tensors
    shared = "SharedBatchNorm2d" if device == "cpu" else "SyncBatchNorm"
    for name, kind in kinds.items():
        now = type(network.get_submodule(name))
        if stages and frozen(name, stages):
            assert now is kind
        else:
            assert now.__name__ == shared, name
    network.eval().train()
    assert all(each.training != bool(stages and frozen(name, stages)) for name, each in modules_of(network, kinds))


def modules_of(network: nn.Module, names: Any) -> list[tuple[str, nn.Module]]:
    return [(name, network.get_submodule(name)) for name in names]


@pytest.mark.parametrize("stages", [True, 2])
def test_processes_wait_for_no_gradient_of_a_frozen_layer(stages: bool | int) -> None:
    network = network_of(stages)
    plain = copy.deepcopy(network).requires_grad_(True)
    assert unreached(network, height=64, width=64) == unreached(plain, height=64, width=64) == []
