"""Negative learning against a loop over pixels and classes, in double precision."""

import math
from itertools import product

import pytest
import torch

from u2pl.pixels import NegativeLearning
from u2pl.pixels.negative_keys import NegativeKeys, class_rank
from u2pl.pixels.negative_learning import log_complement

C = 5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("low", "high"), [(1, 2), (1, 5), (2, 4)])
@pytest.mark.parametrize("size", [1, 3])
def test_against_a_loop(seed: int, low: int, high: int, size: int) -> None:
    torch.manual_seed(seed)
    logits, teacher = 3 * torch.randn(size, C, 3, 4), torch.randn(size, C, 3, 4)
    unreliable = torch.rand(size, 3, 4) < 0.5
    losses = []
    for b, y, x in product(range(size), range(3), range(4)):
        order = sorted(range(C), key=lambda c: -teacher[b, c, y, x].item())
        p = logits[b, :, y, x].double().softmax(dim=0).tolist()
        losses += [-math.log(1 - p[c]) for c in order[low:high] if unreliable[b, y, x]]
    loss = NegativeLearning(NegativeKeys(low, high))(logits, class_rank(teacher), unreliable)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_everything_unreliable_and_nothing() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 3, 4, requires_grad=True)
    rank = class_rank(torch.randn(2, 2, 3, 4))
    everything = torch.ones(2, 3, 4, dtype=torch.bool)
    negative = NegativeLearning(NegativeKeys(1, 2))
    unlikely = rank.argmax(dim=1, keepdim=True)  # of two classes, the other one
    expected = -(1 - logits.detach().softmax(dim=1).gather(1, unlikely)).log().mean()
    torch.testing.assert_close(negative(logits, rank, everything).detach(), expected)
    loss = negative(logits, rank, ~everything)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_only_unlikely_classes_of_unreliable_pixels_are_pushed_down() -> None:
    torch.manual_seed(1)
    logits = torch.randn(1, C, 1, 2, requires_grad=True)
    rank = torch.arange(C).view(1, C, 1, 1).expand(1, C, 1, 2)
    NegativeLearning(NegativeKeys(2, 4))(logits, rank, torch.tensor([[[True, False]]])).backward()
    assert (logits.grad[0, 2:4, 0, 0] > 0).all()  # against the gradient is down
    assert (logits.grad[0, [0, 1, 4], 0, 0] < 0).all()
    assert not logits.grad[..., 1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gap", [0.0, 1.0, 20.0, 90.0, 1e4])
def test_the_complement_of_a_sure_class(gap: float, dtype: torch.dtype) -> None:
    """log1p(-p) alone is minus infinity here, and its gradient not a number."""
    logits = torch.zeros(1, 4, dtype=dtype)
    logits[0, 1] = gap
    logits.requires_grad_()
    value = log_complement(logits)
    others = math.log(3) - math.log(3 + math.exp(gap)) if gap < 100 else math.log(3) - gap
    assert value[0, 1].item() == pytest.approx(others, rel=1e-2 if dtype == torch.bfloat16 else 1e-5)
    (-value[0, 1]).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 1].item() == pytest.approx(1 / (1 + 3 * math.exp(-gap)), rel=1e-2)  # p, and so at most one


def test_its_gradient_is_that_of_double_precision() -> None:
    torch.manual_seed(2)
    logits = 4 * torch.randn(6, C, 2)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        x = logits.to(dtype, copy=True).requires_grad_()
        value = log_complement(x) if dtype == torch.float32 else (1 - x.softmax(dim=1)).log()
        (value * torch.arange(C).view(1, C, 1)).sum().backward()
        gradients.append(x.grad.float())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
