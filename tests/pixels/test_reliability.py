from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from u2pl.pixels.reliability import (
    ConfidenceThreshold,
    Reliability,
    class_entropy_thresholds,
    entropy_threshold,
    partition,
)
from u2pl.structures import PseudoLabel


def random_pseudo_label(seed: int, size: tuple[int, int, int] = (2, 6, 7)) -> PseudoLabel:
    torch.manual_seed(seed)
    return PseudoLabel.from_logits(torch.randn(size[0], 5, *size[1:]), torch.rand(size) > 0.3)


def sets(pseudo: PseudoLabel) -> tuple[int, int, int]:
    return tuple(int(mask.sum()) for mask in (pseudo.valid, pseudo.reliable, pseudo.unreliable))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.2, 0.5, 1 / 3, 1.0])
def test_threshold_is_the_quantile_of_valid_pixels(seed: int, alpha: float) -> None:
    torch.manual_seed(seed)
    entropy, valid = torch.rand(2, 5, 7), torch.rand(2, 5, 7) > 0.4
    expected = np.quantile(entropy[valid].double().numpy(), 1 - alpha)
    assert entropy_threshold(entropy, valid, alpha).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_threshold_of_few_valid_pixels(number: int) -> None:
    entropy, valid = torch.arange(6.0).view(1, 2, 3), torch.zeros(1, 2, 3, dtype=torch.bool)
    valid.view(-1)[2 : 2 + number] = True
    expected = np.quantile(np.arange(2.0, 2 + number), 0.8)
    assert entropy_threshold(entropy, valid, 0.2).item() == pytest.approx(expected, abs=1e-5)


def test_no_valid_pixel() -> None:
    entropy, valid = torch.rand(1, 3, 3), torch.zeros(1, 3, 3, dtype=torch.bool)
    assert entropy_threshold(entropy, valid, 0.2) == torch.inf
    pseudo = PseudoLabel.from_logits(torch.randn(1, 4, 3, 3), valid)
    assert sets(partition(pseudo, alpha=0.2)) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("alpha", "floor"), [(0.2, 0.0), (0.5, 0.0), (0.1, 0.5), (0.3, 0.99)])
def test_partition_pixel_by_pixel(seed: int, alpha: float, floor: float) -> None:
    before = random_pseudo_label(seed)
    after = partition(before, alpha=alpha, min_confidence=floor)
    gamma = np.quantile(before.entropy[before.valid].numpy(), 1 - alpha)
    for place in np.ndindex(*before.label.shape):
        believed = before.entropy[place] < gamma and before.confidence[place] >= floor
        assert after.reliable[place] == (before.valid[place] and believed)
        assert after.unreliable[place] == (before.valid[place] and not believed)
    for name in ("label", "entropy", "confidence", "valid"):
        assert torch.equal(getattr(after, name), getattr(before, name))


def test_alpha_one_holds_all_valid_pixels_unreliable() -> None:
    pseudo = partition(random_pseudo_label(0), alpha=1.0)
    assert sets(pseudo) == (int(pseudo.valid.sum()), 0, int(pseudo.valid.sum()))


def test_alpha_zero_holds_only_the_least_certain_pixel_unreliable() -> None:
    pseudo = partition(random_pseudo_label(0), alpha=0.0)
    assert int(pseudo.unreliable.sum()) == 1
    assert pseudo.entropy[pseudo.unreliable] == pseudo.entropy[pseudo.valid].max()


def with_entropy(entropy: Tensor) -> PseudoLabel:
    label = torch.zeros(entropy.shape, dtype=torch.long)
    valid = torch.ones_like(label, dtype=torch.bool)
    return PseudoLabel(label, entropy, torch.ones_like(entropy), valid, valid, ~valid)


def test_a_tie_at_the_threshold_is_unreliable() -> None:
    assert sets(partition(with_entropy(torch.full((1, 2, 5), 0.4)), alpha=0.2)) == (10, 0, 10)
    assert sets(partition(with_entropy(torch.tensor([[[0.1, 0.2, 0.3, 0.3, 0.3]]])), alpha=0.5)) == (5, 2, 3)


def test_a_confidence_at_the_floor_is_reliable() -> None:
    pseudo = partition(with_entropy(torch.tensor([[[0.1, 0.2, 0.3]]])), alpha=0.0, min_confidence=1.0)
    assert pseudo.reliable.tolist() == [[[True, True, False]]]


def loop_class_wise(pseudo: PseudoLabel, alpha: float, floor: float) -> list[bool]:
    """Whether each pixel is reliable, by the quantile of the valid pixels of its own class."""
    reliable = []
    for place in np.ndindex(*pseudo.label.shape):
        peers = pseudo.entropy[pseudo.valid & (pseudo.label == pseudo.label[place])].double().numpy()
        believed = pseudo.valid[place] and pseudo.confidence[place] >= floor
        reliable.append(bool(believed and pseudo.entropy[place] < np.quantile(peers, 1 - alpha).astype(np.float32)))
    return reliable


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("alpha", "floor"), [(0.2, 0.0), (0.5, 0.0), (1 / 3, 0.5), (0.0, 0.0), (1.0, 0.0)])
@pytest.mark.parametrize("size", [(2, 6, 7), (1, 3, 3)])
def test_class_wise_partition_pixel_by_pixel(seed: int, alpha: float, floor: float, size: tuple[int, int, int]) -> None:
    before = random_pseudo_label(seed, size)
    after = partition(before, alpha=alpha, min_confidence=floor, class_wise=True)
    assert after.reliable.flatten().tolist() == loop_class_wise(before, alpha, floor)
    assert torch.equal(after.unreliable, before.valid & ~after.reliable)


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 1.0])
def test_class_wise_thresholds_are_those_of_each_class_alone(alpha: float) -> None:
    torch.manual_seed(5)
    entropy, label, valid = 3 * torch.rand(3, 8, 9) ** 4, torch.randint(0, 6, (3, 8, 9)), torch.rand(3, 8, 9) > 0.3
    label[label == 2] = 254  # absent, and the last class there can be
    label[label == 4] = 3
    label[0, 0, 0], valid[0, 0, 0] = 4, True  # one pixel
    gamma = class_entropy_thresholds(entropy, label, valid, alpha)
    assert gamma.shape == (255,)
    for c in range(255):
        assert torch.equal(gamma[c], entropy_threshold(entropy, valid & (label == c), alpha)), c
    assert gamma[4] == entropy[0, 0, 0]
    assert gamma[2] == torch.inf


def test_of_one_class_the_class_wise_partition_is_the_partition_of_all() -> None:
    torch.manual_seed(0)
    pseudo = replace(random_pseudo_label(0), label=torch.full((2, 6, 7), 3))
    for alpha in (0.0, 0.2, 0.7):
        all_of_them, by_class = (partition(pseudo, alpha=alpha, class_wise=how) for how in (False, True))
        assert torch.equal(all_of_them.reliable, by_class.reliable)


def test_class_wise_a_rare_class_is_not_silenced() -> None:
    pseudo = with_entropy(torch.tensor([[[0.1] * 5 + [0.2] * 5 + [0.5, 0.6, 0.7, 0.8, 0.9]]]))
    pseudo.label[..., 10:] = 1
    assert not partition(pseudo, alpha=0.4).reliable[..., 10:].any()
    by_class = partition(pseudo, alpha=0.4, class_wise=True)
    assert by_class.reliable[0, 0].tolist() == [True] * 5 + [False] * 5 + [True] * 3 + [False] * 2


def test_class_wise_one_pixel_or_equal_entropies_are_unreliable() -> None:
    pseudo = with_entropy(torch.tensor([[[0.2, 0.4, 0.4, 0.4, -0.0, 0.1, 0.3]]]))
    pseudo.label[0, 0] = torch.tensor([0, 1, 1, 1, 2, 2, 2])
    by_class = partition(pseudo, alpha=0.5, class_wise=True)
    assert by_class.reliable[0, 0].tolist() == [False] * 4 + [True, False, False]


@pytest.mark.parametrize("class_wise", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0])
def test_what_is_certain_is_reliable_whatever_the_threshold(alpha: float, class_wise: bool) -> None:
    """A batch of background alone: gamma_t is 0, and no entropy is below it."""
    certain = with_entropy(torch.zeros(2, 3, 4))
    assert partition(certain, alpha=alpha, class_wise=class_wise).reliable.all()
    assert not partition(certain, alpha=alpha, class_wise=class_wise, min_confidence=1.1).reliable.any()


def test_class_wise_without_a_valid_pixel() -> None:
    pseudo = PseudoLabel.from_logits(torch.randn(1, 4, 3, 3), torch.zeros(1, 3, 3, dtype=torch.bool))
    assert sets(partition(pseudo, alpha=0.2, class_wise=True)) == (0, 0, 0)


def test_the_options_of_reliability_arrive() -> None:
    pseudo = random_pseudo_label(2)
    reliability = Reliability(0.6, min_confidence=0.3, class_wise=True)
    expected = partition(pseudo, alpha=0.6 * 0.25, min_confidence=0.3, class_wise=True)
    assert torch.equal(reliability.partition(pseudo, 0.75).reliable, expected.reliable)
    assert not torch.equal(Reliability(0.6, min_confidence=0.3).partition(pseudo, 0.75).reliable, expected.reliable)


def test_the_share_of_unreliable_pixels_falls_or_stays() -> None:
    assert [Reliability(0.4).alpha_t(progress) for progress in (0.0, 0.5, 0.75)] == pytest.approx([0.4, 0.2, 0.1])
    assert [Reliability(0.4, dynamic=False).alpha_t(progress) for progress in (0.0, 0.75)] == [0.4, 0.4]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("size", [(2, 6, 7), (1, 3, 3)])
def test_a_confidence_threshold_pixel_by_pixel(seed: int, threshold: float, size: tuple[int, int, int]) -> None:
    before = random_pseudo_label(seed, size)
    after = ConfidenceThreshold(threshold).partition(before, 0.0)
    for place in np.ndindex(*size):
        believed = before.confidence[place] >= threshold
        assert after.reliable[place] == (before.valid[place] and believed)
        assert after.unreliable[place] == (before.valid[place] and not believed)
    for name in ("label", "entropy", "confidence", "valid"):
        assert torch.equal(getattr(after, name), getattr(before, name))
    late = ConfidenceThreshold(threshold).partition(before, 0.9)
    assert torch.equal(late.reliable, after.reliable)  # it is the same at any time


def test_a_confidence_at_the_threshold_is_reliable() -> None:
    pseudo = with_entropy(torch.tensor([[[0.1, 0.2, 0.3]]]))
    pseudo.confidence[0, 0] = torch.tensor([0.5, 0.75, 1.0])
    assert ConfidenceThreshold(0.75).partition(pseudo, 0.0).reliable.tolist() == [[[False, True, True]]]
    assert sets(ConfidenceThreshold(0.5).partition(pseudo, 0.0)) == (3, 3, 0)
    nothing = PseudoLabel.from_logits(torch.randn(1, 4, 3, 3), torch.zeros(1, 3, 3, dtype=torch.bool))
    assert sets(ConfidenceThreshold(0.0).partition(nothing, 0.0)) == (0, 0, 0)
