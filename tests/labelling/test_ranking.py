"""The parts of a ranking against slow, obvious loops."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from u2pl.labelling.ranking import (
    BINS,
    FARTHEST,
    NOTHING,
    Chosen,
    alike,
    class_entropy_histogram,
    core_set,
    covering,
    entropy_edges,
    first_unreliable,
    rarity,
    threshold,
    unreliable_area,
)
from u2pl.pixels import entropy_threshold


def predicted(classes: int, images: int, seed: int, *, sharp: float = 4.0) -> tuple[Tensor, Tensor]:
    """Labels and entropies (images, 9, 11) of random scores."""
    scores = sharp * torch.randn(images, classes, 9, 11, generator=torch.Generator().manual_seed(seed))
    log_probability = scores.log_softmax(dim=1)
    return scores.argmax(dim=1), -(log_probability.exp() * log_probability).sum(dim=1)


def test_edges_rise_to_the_largest_entropy() -> None:
    edges = entropy_edges(11)
    assert edges.shape == (BINS - 1,)
    assert (edges.diff() > 0).all()
    for place in range(BINS - 1):
        u = (place + 1) / BINS
        share = 4 * u**3 if u <= 0.5 else 1 - 4 * (1 - u) ** 3
        assert float(edges[place]) == pytest.approx(share * math.log(11), rel=1e-6)
    assert float(edges.diff().max()) < 0.05 * math.log(11)
    assert float(entropy_edges(1)[0]) > 0  # of one class, all entropies are 0


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_a_histogram_counts_pixel_by_pixel(classes: int) -> None:
    label, entropy = predicted(classes, 3, classes)
    edges = entropy_edges(classes)
    entropy[0, 0, 0] = edges[5]  # on an edge
    entropy[0, 0, 1] = -1e-7  # rounded
    expected = torch.zeros(3, classes, BINS)
    for image in range(3):
        for y in range(9):
            for x in range(11):
                place = sum(float(entropy[image, y, x]) >= float(edge) for edge in edges)
                expected[image, label[image, y, x], place] += 1 / 99
    torch.testing.assert_close(class_entropy_histogram(label, entropy, classes, edges), expected)


@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("sharp", [0.05, 0.5, 4.0, 30.0])
def test_the_threshold_is_the_quantile_up_to_a_bin(alpha: float, sharp: float) -> None:
    label, entropy = predicted(7, 4, 1, sharp=sharp)
    edges = entropy_edges(7)
    shares = class_entropy_histogram(label, entropy, 7, edges).sum(dim=(0, 1))
    first = first_unreliable(shares, alpha)
    exact = float(entropy_threshold(entropy, torch.ones_like(entropy, dtype=torch.bool), alpha))
    gamma = threshold(first, edges)
    assert float((entropy >= gamma).double().mean()) <= alpha + 1e-9
    below = float(edges[first - 2]) if first >= 2 else 0.0
    if first > 1:  # the quantile lies between two entropies
        assert below <= float(entropy[entropy >= exact].min())
        assert exact <= gamma
        # One bin more would be too much.
        assert float((entropy >= below).double().mean()) > alpha


def test_the_threshold_of_special_histograms() -> None:
    edges = entropy_edges(5)
    for bin_ in (0, 1, 30, BINS - 1):  # all pixels are equal: none is above the quantile
        shares = torch.zeros(BINS)
        shares[bin_] = 3.0
        assert first_unreliable(shares, 0.2) == bin_ + 1
    assert threshold(BINS, edges) == math.inf
    assert first_unreliable(torch.ones(BINS), 1.0) == 1  # certain pixels are reliable whatever alpha is
    assert threshold(1, edges) == float(edges[0])
    assert first_unreliable(torch.ones(BINS), 0.25) == BINS - BINS // 4


def test_rare_classes_weigh_more() -> None:
    shares = torch.tensor([6.0, 2.0, 1.99, 0.01, 0.0])
    weight = rarity(shares)
    plain = [max(float(each) / 10, 1e-3) ** -0.5 for each in shares]
    mean = sum(float(share) / 10 * each for share, each in zip(shares, plain, strict=True))
    torch.testing.assert_close(weight, torch.tensor([each / mean for each in plain]))
    assert float((shares / 10) @ weight) == pytest.approx(1.0)
    assert weight[3] == weight[4]  # bounded: a few wrong pixels are no treasure
    assert torch.equal(rarity(torch.tensor([5.0])), torch.ones(1))


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("first", [1, 20, BINS])
def test_an_area_adds_up_pixels(first: int, weighted: bool) -> None:
    label, entropy = predicted(4, 5, 3)
    edges = entropy_edges(4)
    weight = torch.tensor([0.5, 1.0, 2.0, 7.0])
    histogram = class_entropy_histogram(label, entropy, 4, edges)
    area = unreliable_area(histogram, first, weight if weighted else None)
    for image in range(5):
        total = 0.0
        for y in range(9):
            for x in range(11):
                if float(entropy[image, y, x]) >= threshold(first, edges):
                    total += float(weight[label[image, y, x]]) if weighted else 1.0
        assert float(area[image]) == pytest.approx(total / 99, abs=1e-6)
    assert (area == 0).all() == (first == BINS)


@pytest.mark.parametrize("number", [1, 2, 9, 5000])
def test_rows_are_standardised_and_of_length_one(number: int) -> None:
    embedding = (
        torch.randn(number, 6, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 100.0, 0.01, 1, 1, 0])
        + 3
    )
    rows = alike(embedding.half())
    values = embedding.half().double()
    spread = values.std(dim=0, correction=0) + 1e-3
    expected = (values - values.mean(dim=0)) / spread
    expected = expected / expected.norm(dim=1, keepdim=True).clamp(min=1e-12)
    torch.testing.assert_close(rows.double(), expected, atol=1e-3, rtol=0)
    assert rows.dtype == torch.float16


def test_the_scale_of_features_does_not_count() -> None:
    embedding = torch.randn(9, 6, generator=torch.Generator().manual_seed(2))
    for scale in (1e-9, 1e6):  # of an encoder that nobody has trained, for one
        small = alike(scale * embedding).float()
        assert float((small.norm(dim=1) - 1).abs().max()) < 0.01
        assert float((small @ small.T - torch.eye(9)).abs().mean()) < 0.5


def loop(rows: Tensor, value: Tensor, count: int, centres: Tensor | None, *, by: str) -> tuple[list[int], list[int]]:
    """Greedy, by all distances anew each time; for values without ties."""

    def closest_of(row: Tensor, others: dict[int, Tensor]) -> float:
        return min([FARTHEST, *(math.dist(row.tolist(), other.tolist()) for other in others.values())])

    chosen: list[int] = []
    nearest: list[int] = []
    while len(chosen) < min(count, len(rows)):
        best, where, most = -1, NOTHING, -1.0
        for place in range(len(rows)):
            if place in chosen:
                continue
            others = {} if centres is None else {-1 - m: centre for m, centre in enumerate(centres)}
            others |= {each: rows[each] for each in chosen}
            away = {name: math.dist(rows[place].tolist(), other.tolist()) for name, other in others.items()}
            closest = min(away, key=lambda name: away[name]) if away else NOTHING
            distance = closest_of(rows[place], others)
            gain = float(value[place]) * (distance if by == "distance" else 1.0)
            if by == "covered":
                gain = 0.0
                for row, worth in zip(rows, value.tolist(), strict=True):
                    nearer = closest_of(row, others) - math.dist(row.tolist(), rows[place].tolist())
                    gain += worth * max(0.0, nearer) / len(rows)
            if gain > most:
                best, where, most = place, closest, gain
        chosen.append(best)
        nearest.append(where)
    return chosen, nearest


@pytest.mark.parametrize("by", ["distance", "value", "covered"])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_that_of_a_loop(seed: int, centred: bool, by: str) -> None:
    def choose(count: int) -> Chosen:
        if by == "covered":
            return covering(rows[:number], value, count, centres=centres, seed=seed)
        return core_set(rows[:number], value, count, centres=centres, diverse=by == "distance", seed=seed)

    draw = torch.Generator().manual_seed(seed)
    number = random.Random(seed).randint(1, 14)
    rows = alike(torch.randn(number + 3, 5, generator=draw))
    value = torch.rand(number, generator=draw) + 0.1
    centres = rows[number:] if centred else None
    found = choose(20)
    place, nearest = loop(rows[:number], value, 20, centres, by=by)
    assert found.place == place
    assert sorted(place) == list(range(number))  # count = all
    assert found.nearest == nearest
    assert choose(3).place == place[:3]


def test_many_rows_are_compared_in_parts() -> None:
    draw = torch.Generator().manual_seed(0)
    rows, value = alike(torch.randn(9000, 4, generator=draw)), torch.rand(9000, generator=draw)
    found = core_set(rows, value, 6)
    distance = torch.full((9000,), FARTHEST)
    for place, score in zip(found.place, found.score, strict=True):
        gain = value * distance
        assert (place, score) == (int(gain.argmax()), pytest.approx(float(gain.max())))
        distance = torch.minimum(distance, (rows.float() - rows[place].float()).norm(dim=1))


def test_the_same_image_twice_waits_for_the_others() -> None:
    embedding = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    rows = alike(torch.cat([embedding, embedding[:3]]))  # places 6, 7, 8 are twins of 0, 1, 2
    value = torch.tensor([9.0, 8.0, 7.0, 0.1, 0.1, 0.1, 9.0, 8.0, 7.0])
    for values in (value, torch.ones(9)):
        for choose in (core_set, covering):
            assert len({place % 6 for place in choose(rows, values, 6).place}) == 6
    assert covering(rows, value, 9).score[6:] == [0.0] * 3
    assert sorted(place % 6 for place in core_set(rows, value, 2, diverse=False).place) == [0, 0]


def test_the_twin_of_a_covered_image_covers_nothing() -> None:
    rows = alike(torch.randn(40, 1280, generator=torch.Generator().manual_seed(2))).repeat(2, 1)
    found = covering(rows, torch.ones(80), 80)
    assert sorted(place % 40 for place in found.place[:40]) == list(range(40))
    assert found.score[40:] == [0.0] * 40


def test_without_an_unreliable_pixel_the_farthest_is_chosen() -> None:
    rows = alike(torch.randn(7, 5, generator=torch.Generator().manual_seed(1)))
    nothing, one = core_set(rows, torch.zeros(7), 7, seed=3), core_set(rows, torch.ones(7), 7, seed=3)
    assert nothing.place == one.place
    assert nothing.score == [0.0] * 7
    assert covering(rows, torch.zeros(7), 7, seed=3) == nothing
    for choose in (core_set, covering):
        some = choose(rows, torch.tensor([0.0, 0, 0, 2, 0, 0, 0]), 7)
        assert some.place[0] == 3
        assert sorted(some.place) == list(range(7))


def test_some_of_many_rows_stand_for_all() -> None:
    """Six groups of like rows: one of each is chosen, the largest group first."""
    draw = torch.Generator().manual_seed(0)
    sizes = [2600, 1900, 1400, 1000, 600, 300]
    group = torch.repeat_interleave(torch.arange(6), torch.tensor(sizes))
    rows = torch.nn.functional.normalize(
        torch.randn(6, 16, generator=draw)[group] + 0.1 * torch.randn(7800, 16, generator=draw), dim=1
    )
    found = covering(rows.half(), torch.ones(7800), 6)
    assert sorted(group[found.place].tolist()) == list(range(6))
    assert int(group[found.place[0]]) in (0, 1, 2)
    assert found.score == sorted(found.score, reverse=True)


def test_equal_images_are_in_an_order_of_the_seed() -> None:
    rows = alike(torch.ones(12, 3))
    orders = [core_set(rows, torch.ones(12), 12, seed=seed).place for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == list(range(12))
    assert orders[0] != list(range(12))


def test_one_image_and_none() -> None:
    assert core_set(alike(torch.randn(1, 3)), torch.ones(1), 5) == ([0], [FARTHEST], [NOTHING])
    for choose in (core_set, covering):
        assert choose(torch.empty(0, 3), torch.ones(0), 5) == ([], [], [])
