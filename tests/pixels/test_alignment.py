"""Distribution alignment against a loop over steps and pixels."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from u2pl.pixels import DistributionAlignment
from u2pl.structures import IGNORE_INDEX

C = 4


def random_label(*shape: int, ignored: float = 0.3) -> Tensor:
    return torch.randint(0, C, shape).masked_fill(torch.rand(shape) < ignored, IGNORE_INDEX)


class Running:
    """A running distribution in plain numbers."""

    def __init__(self) -> None:
        self.value, self.steps = [0.0] * C, 0

    def follow(self, mass: list[float], momentum: float) -> None:
        if sum(mass) == 0:
            return
        self.steps += 1
        m = min(1 - 1 / self.steps, momentum)
        self.value = [m * old + (1 - m) * new / sum(mass) for old, new in zip(self.value, mass, strict=True)]


def class_mass(probability: Tensor, valid: Tensor) -> list[float]:
    mass = [0.0] * C
    for b, y, x in product(*(range(n) for n in valid.shape)):
        if valid[b, y, x]:
            for c in range(C):
                mass[c] += probability[b, c, y, x].item()
    return mass


def counts(label: Tensor) -> list[float]:
    return [float(sum(value == c for value in label.flatten().tolist())) for c in range(C)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bound", [10.0, 1.2])
def test_against_a_loop(seed: int, bound: float) -> None:
    torch.manual_seed(seed)
    alignment = DistributionAlignment(C, momentum=0.6, bound=bound)
    labeled, predicted = Running(), Running()
    for step in range(6):
        label = random_label(2, 3, 4, ignored=1.0 if step == 2 else 0.3)  # a step without a labeled pixel
        label[label == 3] = 0  # an absent class
        logits = 2 * torch.randn(1 + step % 2, C, 3, 4) + torch.arange(C).view(1, C, 1, 1)
        valid = torch.rand(len(logits), 3, 4) < (0.0 if step == 3 else 0.8)  # one without a valid pixel
        alignment.observe(label)
        aligned = alignment(logits, valid).softmax(dim=1)
        labeled.follow(counts(label), 0.6)
        predicted.follow(class_mass(logits.softmax(dim=1), valid), 0.6)
        assert alignment.labeled.tolist() == pytest.approx(labeled.value, abs=1e-6)
        assert alignment.predicted.tolist() == pytest.approx(predicted.value, abs=1e-6)
        factor = [min(bound, max(1 / bound, p / q)) for p, q in zip(labeled.value, predicted.value, strict=True)]
        for b, y, x in product(range(len(logits)), range(3), range(4)):
            product_ = [p * f for p, f in zip(logits.softmax(dim=1)[b, :, y, x].tolist(), factor, strict=True)]
            expected = [value / sum(product_) for value in product_]
            assert aligned[b, :, y, x].tolist() == pytest.approx(expected, rel=1e-4)
    assert alignment.steps.tolist() == [labeled.steps, predicted.steps] == [5, 5]


def test_equal_distributions_change_nothing() -> None:
    alignment = DistributionAlignment(2)
    alignment.observe(torch.tensor([[[0, 0, 0, 1]]]))
    logits = torch.tensor([0.75, 0.25]).log().view(1, 2, 1, 1).expand(1, 2, 2, 3)
    torch.testing.assert_close(alignment(logits), logits)


def test_until_labels_are_known_nothing_changes() -> None:
    alignment = DistributionAlignment(C)
    logits = torch.randn(2, C, 3, 3)
    assert torch.equal(alignment(logits), logits)
    alignment.observe(torch.full((1, 2, 2), IGNORE_INDEX))
    assert torch.equal(alignment(logits), logits)
    alignment.observe(torch.zeros(1, 2, 2, dtype=torch.long))
    assert not torch.equal(alignment(logits), logits)


def test_one_class_in_the_labels_is_bounded() -> None:
    alignment = DistributionAlignment(C)
    alignment.observe(torch.zeros(1, 2, 2, dtype=torch.long))
    logits = torch.zeros(1, C, 2, 2)
    logits[:, 3] = -1e4  # a class that neither shows keeps its score
    change = (alignment(logits) - logits)[0, :, 0, 0]
    assert change.tolist() == pytest.approx([math.log(3), -math.log(10), -math.log(10), 0], abs=1e-4)


def test_a_step_that_overflowed_is_forgotten() -> None:
    alignment = DistributionAlignment(C)
    alignment.observe(random_label(1, 4, 4))
    alignment(torch.randn(1, C, 3, 3))
    before = alignment.predicted.clone()
    broken = torch.randn(1, C, 3, 3)
    broken[0, 0, 0, 0] = torch.nan
    alignment(broken)
    assert torch.equal(alignment.predicted, before)
    alignment(broken, torch.arange(9).view(1, 3, 3) > 0)  # beyond the image it does no harm
    assert alignment.steps.tolist() == [1, 2]
    assert alignment.predicted.isfinite().all()


def test_processes_share_their_sums() -> None:
    """Two processes hold the distributions of one that sees both batches."""
    labels, logits = random_label(2, 5, 4), torch.randn(2, C, 5, 4)
    alone = DistributionAlignment(C)
    alone.observe(labels)
    whole = alone(logits)
    other = {"mass": torch.zeros(C)}
    shared = DistributionAlignment(C, reduce=lambda mass: mass + other["mass"])
    other["mass"] = torch.tensor(counts(labels[1]))
    shared.observe(labels[:1])
    other["mass"] = logits[1].softmax(dim=0).sum(dim=(1, 2))
    torch.testing.assert_close(shared(logits[:1]), whole[:1])
    torch.testing.assert_close(shared.labeled, alone.labeled)


def test_what_is_saved_goes_on() -> None:
    first, second = DistributionAlignment(C), DistributionAlignment(C)
    for _ in range(3):
        first.observe(random_label(1, 4, 4))
        first(torch.randn(1, C, 4, 4))
    second.load_state_dict(first.state_dict())
    label, logits = random_label(1, 4, 4), torch.randn(1, C, 4, 4)
    for alignment in (first, second):
        alignment.observe(label)
    assert torch.equal(first(logits), second(logits))
