import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from u2pl.pixels.losses import BalancedCrossEntropy, OhemCrossEntropy, SymmetricCrossEntropy, cross_entropy
from u2pl.structures import IGNORE_INDEX


def random_pixels(seed: int, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    target = torch.randint(0, 4, (2, 3, 5))
    target[torch.rand(2, 3, 5) < 0.25] = IGNORE_INDEX
    return torch.randn(2, 4, 3, 5) * scale, target


def pixel_losses(logits: Tensor, target: Tensor) -> list[float]:
    losses = []
    for b, y, x in product(*map(range, target.shape)):
        if target[b, y, x] != IGNORE_INDEX:
            weights = [math.exp(value) for value in logits[b, :, y, x].tolist()]
            losses.append(-math.log(weights[int(target[b, y, x])] / sum(weights)))
    return losses


@pytest.mark.parametrize("seed", range(3))
def test_cross_entropy(seed: int) -> None:
    logits, target = random_pixels(seed)
    losses = pixel_losses(logits, target)
    assert cross_entropy(logits, target).item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.3, 0.7])
@pytest.mark.parametrize("min_kept", [1, 6, 15, 1000])
def test_ohem(seed: int, threshold: float, min_kept: int) -> None:
    logits, target = random_pixels(seed)
    losses = sorted(pixel_losses(logits, target), reverse=True)
    hard = [loss for loss in losses if math.exp(-loss) <= threshold]
    kept = hard if len(hard) >= min_kept else losses[:min_kept]
    loss = OhemCrossEntropy(threshold=threshold, min_kept=min_kept)(logits, target)
    assert loss.item() == pytest.approx(sum(kept) / len(kept), rel=1e-5)


def test_ohem_of_easy_pixels_keeps_the_hardest_of_them() -> None:
    target = torch.zeros(1, 1, 4, dtype=torch.long)
    logits = torch.zeros(1, 2, 1, 4)
    logits[0, 0, 0] = torch.tensor([5.0, 6.0, 7.0, 8.0])
    losses = pixel_losses(logits, target)
    assert OhemCrossEntropy(0.7, min_kept=2)(logits, target).item() == pytest.approx(sum(losses[:2]) / 2, rel=1e-4)
    assert OhemCrossEntropy(0.7, min_kept=9)(logits, target).item() == pytest.approx(sum(losses) / 4, rel=1e-4)


@pytest.mark.parametrize("min_kept", [2, 3, 4])
def test_ohem_keeps_all_pixels_as_hard_as_the_last(min_kept: int) -> None:
    margins = [3.0, 3.0, -1.0, 3.0, 3.0, 6.0, 9.0]  # one hard pixel, four alike, two easier; the last is ignored
    logits = torch.zeros(1, 2, 1, 7)
    logits[0, 0, 0] = torch.tensor(margins)
    logits.requires_grad_()
    target = torch.zeros(1, 1, 7, dtype=torch.long)
    target[0, 0, 6] = IGNORE_INDEX
    value = OhemCrossEntropy(0.1, min_kept=min_kept)(logits, target)
    kept = [math.log(1 + math.exp(-margin)) for margin in margins[:5]]
    assert value.item() == pytest.approx(sum(kept) / 5, rel=1e-5)
    value.backward()
    assert logits.grad is not None
    assert (logits.grad[0, 0, 0] != 0).tolist() == [True] * 5 + [False] * 2


def test_ohem_keeps_a_pixel_at_the_threshold() -> None:
    logits = torch.zeros(1, 2, 1, 3)
    logits[0, 0, 0] = torch.tensor([0.0, 2.0, -1.0])  # the first has a probability of one half
    losses = pixel_losses(logits, torch.zeros(1, 1, 3, dtype=torch.long))
    value = OhemCrossEntropy(0.5, min_kept=1)(logits, torch.zeros(1, 1, 3, dtype=torch.long))
    assert value.item() == pytest.approx((losses[0] + losses[2]) / 2, rel=1e-5)


def balanced_loss(logits: Tensor, target: Tensor) -> float:
    labels = [label for label in target.flatten().tolist() if label != IGNORE_INDEX]
    weights = [1 / math.log(1.02 + labels.count(label) / len(labels)) for label in labels]
    losses = pixel_losses(logits, target)
    return sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)


@pytest.mark.parametrize("seed", range(4))
def test_balanced(seed: int) -> None:
    logits, target = random_pixels(seed)
    assert BalancedCrossEntropy()(logits, target).item() == pytest.approx(balanced_loss(logits, target), rel=1e-5)
    target[target == 1] = 2  # a class is absent
    assert BalancedCrossEntropy()(logits, target).item() == pytest.approx(balanced_loss(logits, target), rel=1e-5)
    first = (logits[:1], target[:1])
    assert BalancedCrossEntropy()(*first).item() == pytest.approx(balanced_loss(*first), rel=1e-5)


def test_balanced_of_one_class_is_cross_entropy() -> None:
    logits, _ = random_pixels(0)
    target = torch.full((2, 3, 5), 2)
    plain = cross_entropy(logits, target).item()
    assert BalancedCrossEntropy()(logits, target).item() == pytest.approx(plain, rel=1e-5)


def test_balanced_pulls_harder_on_a_rare_class() -> None:
    logits = torch.zeros(1, 2, 1, 10, requires_grad=True)
    target = torch.zeros(1, 1, 10, dtype=torch.long)
    target[..., 0] = 1
    BalancedCrossEntropy()(logits, target).backward()
    assert logits.grad is not None
    rare, common = logits.grad[0, 1, 0, 0].abs().item(), logits.grad[0, 1, 0, 1].abs().item()
    assert rare / common == pytest.approx(math.log(1.02 + 0.9) / math.log(1.02 + 0.1), rel=1e-4)


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, 2), (1.0, 30)])
def test_ohem_at_the_ends_of_the_threshold(threshold: float, expected: int) -> None:
    logits, target = random_pixels(1)
    losses = sorted(pixel_losses(logits, target), reverse=True)[:expected]
    value = OhemCrossEntropy(threshold, min_kept=2)(logits, target)
    assert value.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("labeled", [1, 5, 6])
def test_ohem_of_few_labeled_pixels_keeps_them_all(labeled: int) -> None:
    logits, target = random_pixels(0, scale=8.0)
    target = torch.full_like(target, IGNORE_INDEX)
    target.view(-1)[:labeled] = logits.argmax(dim=1).view(-1)[:labeled]  # easy ones
    losses = pixel_losses(logits, target)
    assert len(losses) == labeled
    value = OhemCrossEntropy(0.01, min_kept=6)(logits, target)
    assert value.item() == pytest.approx(sum(losses) / labeled, rel=1e-4)


def test_ohem_sends_gradient_to_hard_pixels_only() -> None:
    logits, target = random_pixels(0)
    logits.requires_grad_()
    OhemCrossEntropy(0.5, min_kept=1)(logits, target).backward()
    assert logits.grad is not None
    moved = logits.grad.abs().sum(dim=1) > 0
    probability = logits.detach().softmax(dim=1).gather(1, target.clamp(max=3).unsqueeze(1)).squeeze(1)
    assert torch.equal(moved, (target != IGNORE_INDEX) & (probability <= 0.5))


@pytest.mark.parametrize(
    "loss",
    [
        *(cross_entropy, OhemCrossEntropy(), OhemCrossEntropy(min_kept=1)),
        *(SymmetricCrossEntropy(), BalancedCrossEntropy()),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_to_learn_from_is_zero_with_zero_gradient(
    loss: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype
) -> None:
    logits = torch.randn(2, 3, 4, 4, dtype=dtype, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 4), IGNORE_INDEX))
    value.backward()
    assert value.item() == 0
    assert value.dtype == torch.float32
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weight", [0.1, 2.0])
@pytest.mark.parametrize("floor", [1e-4, 0.05])
def test_symmetric_cross_entropy_against_a_loop(seed: int, weight: float, floor: float) -> None:
    """RCE by its definition, a one-hot target whose zeros are clamped."""
    logits, target = random_pixels(seed)
    losses = []
    for b, y, x in product(*map(range, target.shape)):
        true = target[b, y, x].item()
        if true == IGNORE_INDEX:
            continue
        p = logits[b, :, y, x].double().softmax(dim=0).tolist()
        clamped = [max(floor, float(c == true)) for c in range(len(p))]
        reverse = -sum(each * math.log(q) for each, q in zip(p, clamped, strict=True))
        losses.append(-math.log(p[true]) + weight * reverse)
    value = SymmetricCrossEntropy(weight, floor)(logits, target)
    assert value.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_symmetric_cross_entropy_without_its_reverse_term_is_cross_entropy() -> None:
    logits, target = random_pixels(3)
    torch.testing.assert_close(SymmetricCrossEntropy(0.0)(logits, target), cross_entropy(logits, target))


@pytest.mark.parametrize("gap", [40.0, 1e4])
def test_symmetric_cross_entropy_of_a_pixel_that_is_surely_wrong(gap: float) -> None:
    logits = torch.tensor([gap, 0.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    value = SymmetricCrossEntropy(1.0)(logits, torch.ones(1, 1, 1, dtype=torch.long))
    value.backward()
    assert value.item() == pytest.approx(gap - math.log(1e-4), rel=1e-5)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
