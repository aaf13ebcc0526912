"""Ranks of classes, and which pixels are negatives of which, against loops over pixels."""

from itertools import product
from typing import Any

import pytest
import torch
from test_contrast import PLACES, C, is_negative, random_step, ranks_of

from u2pl.pixels.negative_keys import NegativeKeys, class_rank, default_high_rank, default_low_rank
from u2pl.structures import IGNORE_INDEX, PseudoLabel


@pytest.mark.parametrize("seed", range(3))
def test_class_rank(seed: int) -> None:
    torch.manual_seed(seed)
    probability = torch.randn(2, 6, 3, 4).softmax(dim=1)
    probability[0] = (probability[0] * 5).round() / 5  # ties
    rank = class_rank(probability)
    for b, y, x in product(range(2), range(3), range(4)):
        assert rank[b, :, y, x].tolist() == ranks_of(probability[b, :, y, x].tolist())


def test_class_rank_of_equal_probabilities_and_of_many_classes() -> None:
    assert class_rank(torch.full((1, 4, 1, 1), 0.25)).flatten().tolist() == [0, 1, 2, 3]
    assert class_rank(torch.arange(300.0).view(1, 300, 1)).flatten().tolist() == list(range(299, -1, -1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("low", "high"), [(1, 2), (1, 5), (2, 4), (3, 5)])
def test_negatives(seed: int, low: int, high: int) -> None:
    step = random_step(seed)
    rank = class_rank(step["teacher_probability"])
    mask = NegativeKeys(low, high).mask(rank, step["label"], step["unreliable"])
    for place, c in product(PLACES, range(C)):
        assert mask[place[0], c, place[1], place[2]] == is_negative(step, c, place, low, high), (place, c)


def test_negatives_are_not_gated_by_the_pixels_own_label() -> None:
    # Two pixels, four classes, most likely first: a labeled one of class 0 and an unreliable one.
    rank = torch.arange(4).view(1, 4, 1, 1).expand(1, 4, 1, 2)
    label, unreliable = torch.tensor([[[0, IGNORE_INDEX]]]), torch.tensor([[[False, True]]])
    mask = NegativeKeys(2, 4).mask(rank, label, unreliable)
    assert mask[0, :, 0, 0].tolist() == [False, True, False, False]  # a hard negative of class 1, not of its own
    assert mask[0, :, 0, 1].tolist() == [False, False, True, True]  # of classes other than its pseudo-label


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("low", "high"), [(1, 2), (1, 5), (2, 4), (3, 5)])
def test_unlikely_classes_are_those_of_unreliable_pixels_alone(seed: int, low: int, high: int) -> None:
    step = random_step(seed)
    unlikely = NegativeKeys(low, high).unlikely(class_rank(step["teacher_probability"]), step["unreliable"])
    for (b, y, x), c in product(PLACES, range(C)):
        rank = ranks_of(step["teacher_probability"][b, :, y, x].tolist())[c]
        assert unlikely[b, c, y, x] == (bool(step["unreliable"][b, y, x]) and low <= rank < high)


@pytest.mark.parametrize("seed", range(3))
def test_without_a_threshold_all_classes_but_the_most_likely_are_unlikely(seed: int) -> None:
    """Whatever r_l and r_h are said to be."""
    step = random_step(seed)
    for keys in (NegativeKeys(rank_threshold=False), NegativeKeys(2, 4, rank_threshold=False)):
        mask = keys.mask(class_rank(step["teacher_probability"]), step["label"], step["unreliable"])
        for place, c in product(PLACES, range(C)):
            assert mask[place[0], c, place[1], place[2]] == is_negative(step, c, place, 1, C), (place, c)


def test_defaults_leave_ranks_between_them_whatever_the_number_of_classes() -> None:
    assert [default_low_rank(number) for number in (2, 3, 4, 8, 11, 12, 19, 21, 150)] == [1, 1, 1, 2, 2, 3, 3, 3, 3]
    for number in range(2, 30):
        assert default_high_rank(number) == min(20, number)
        low, high = NegativeKeys().ranks(number)
        assert (low, high) == (default_low_rank(number), min(20, number))
        assert 0 < low < high <= number


def test_a_rank_that_is_given_is_taken_and_the_other_one_is_the_default() -> None:
    assert NegativeKeys(2, 7).ranks(19) == (2, 7)
    assert NegativeKeys(low_rank=5).ranks(19) == (5, 19)
    assert NegativeKeys(low_rank=5).ranks(30) == (5, 20)
    assert NegativeKeys(high_rank=4).ranks(19) == (3, 4)


@pytest.mark.parametrize("number", [2, 5, 19, 150])
def test_without_a_threshold_ranks_are_all_but_the_first(number: int) -> None:
    assert NegativeKeys(rank_threshold=False).ranks(number) == (1, number)
    assert NegativeKeys(9, 3, rank_threshold=False).ranks(number) == (1, number)  # they have no say


@pytest.mark.parametrize(("low", "high"), [(0, 3), (3, 3), (4, 3), (1, 6), (-1, 2), (None, 1), (5, None)])
def test_ranks_out_of_order(low: int | None, high: int | None) -> None:
    with pytest.raises(ValueError, match="0 < low_rank < high_rank <= 5, the number of classes"):
        NegativeKeys(low, high).ranks(5)


@pytest.mark.parametrize("chosen", ["unreliable", "reliable", "all"])
def test_candidates(chosen: Any) -> None:
    torch.manual_seed(0)
    valid = torch.rand(2, 4, 5) < 0.7
    reliable = valid & (torch.rand(2, 4, 5) < 0.5)
    zeros = torch.zeros(2, 4, 5)
    candidates = NegativeKeys(pixels=chosen).candidates(
        PseudoLabel(zeros.long(), zeros, zeros, valid, reliable, valid & ~reliable)
    )
    for place in product(range(2), range(4), range(5)):
        believed = {"unreliable": [False], "reliable": [True], "all": [False, True]}[chosen]
        assert candidates[place] == (bool(valid[place]) and bool(reliable[place]) in believed)
