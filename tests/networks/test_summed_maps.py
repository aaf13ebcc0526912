import pytest
import torch
from segmentation_models_pytorch.decoders.fpn.decoder import MergeBlock
from torch import nn

from u2pl.networks import smp_network
from u2pl.networks.summed_maps import SummedMaps


@pytest.mark.parametrize("maps", [1, 2, 4])
def test_the_sum_and_its_gradient_are_those_of_the_library(maps: int) -> None:
    values = [torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_() for _ in range(maps)]
    sums = []
    for block in (MergeBlock("add"), SummedMaps("add")):
        total = block(values)
        sums.append((total, *torch.autograd.grad(total.square().sum(), values)))
    for one, other in zip(*sums, strict=True):
        torch.testing.assert_close(one, other)
    assert sums[1][0].is_contiguous(memory_format=torch.channels_last)


def test_only_a_sum_is_adopted() -> None:
    network = smp_network(num_classes=3, architecture="FPN", encoder="resnet18", channels=32)
    assert type(network.model.decoder.merge) is SummedMaps
    blocks = nn.ModuleList([MergeBlock("cat"), MergeBlock("add")])
    SummedMaps.adopt(blocks)
    assert [type(block) for block in blocks] == [MergeBlock, SummedMaps]
