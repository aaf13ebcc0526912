from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from threads import Exchange, in_threads
from u2pl.networks.normalization import PooledBatchNorm2d
from u2pl.networks.shared_batch_norm import SharedBatchNorm2d


def network(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)  # type: ignore[union-attr]
        norm.bias.normal_()  # type: ignore[union-attr]
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), norm, nn.Tanh(), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=None), BatchNormAct2d(4)])
@pytest.mark.parametrize("sizes", [(2, 2), (1, 3), (1, 1, 2)])
def test_outputs_gradients_and_statistics_are_those_of_one_process(norm: nn.Module, sizes: tuple[int, ...]) -> None:
    one = network(copy.deepcopy(norm))
    several = [copy.deepcopy(one) for _ in sizes]
    exchange = Exchange(len(sizes))
    for each in several:
        SharedBatchNorm2d.adopt(each, exchange.total)
    inputs = [torch.randn(sum(sizes), 3, 5, 6) * 3 + 40 for _ in range(2)]  # the mean is large beside the deviation
    for x in inputs:
        x.requires_grad_()
    outputs = [one(x) for x in inputs]
    sum(output.square().sum() for output in outputs).backward()  # type: ignore[union-attr]

    parts = [[part.detach().requires_grad_() for part in x.split(sizes)] for x in inputs]

    def work(rank: int) -> list[Tensor]:
        found = [several[rank](x[rank]) for x in parts]
        sum(output.square().sum() for output in found).backward()  # type: ignore[union-attr]
        return found

    found = in_threads(work, len(sizes))
    for step, output in enumerate(outputs):
        ours = torch.cat([found[rank][step] for rank in range(len(sizes))])
        torch.testing.assert_close(ours, output, rtol=1e-5, atol=1e-5)
        gradient = torch.cat([part.grad for part in parts[step]])  # type: ignore[misc]
        torch.testing.assert_close(gradient, inputs[step].grad, rtol=1e-4, atol=1e-5)
    for name, parameter in one.named_parameters():
        gradient = sum(each.get_parameter(name).grad for each in several)  # type: ignore[assignment, misc]
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-4)
    for each in several:
        for name, buffer in one.named_buffers():
            torch.testing.assert_close(each.get_buffer(name), buffer, rtol=1e-5, atol=1e-5)


def test_a_single_value_in_each_process_is_enough() -> None:
    exchange = Exchange(2)
    norms = [PooledBatchNorm2d(3) for _ in range(2)]
    for each in norms:
        SharedBatchNorm2d.adopt(each, exchange.total)
    x = torch.randn(2, 3, 1, 1)
    outputs = in_threads(lambda rank: norms[rank](x[rank : rank + 1]), 2)
    plain = nn.BatchNorm2d(3)
    torch.testing.assert_close(torch.cat(outputs), plain(x))
    torch.testing.assert_close(norms[1].running_var, plain.running_var)


def test_evaluation_and_the_saved_state_are_those_of_torch() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), BatchNormAct2d(4))
    plain(torch.randn(4, 3, 5, 5))
    ours = copy.deepcopy(plain)
    SharedBatchNorm2d.adopt(ours, Exchange(2).total)  # would wait forever
    x = torch.randn(1, 3, 5, 5)
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))
    assert ours.state_dict().keys() == plain.state_dict().keys()
    copy.deepcopy(plain).load_state_dict(ours.state_dict())


def test_half_precision_stays_and_statistics_do_not_overflow() -> None:
    norm = nn.BatchNorm2d(2)
    SharedBatchNorm2d.adopt(norm, lambda tensor: tensor)
    output = norm(torch.full((2, 2, 4, 4), 3e4, dtype=torch.float16))
    assert output.dtype == torch.float16
    assert output.isfinite().all()
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == pytest.approx([3e3, 3e3])
