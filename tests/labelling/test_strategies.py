"""A ranking of looks is that of loops over pixels."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from u2pl.labelling.looking import Look
from u2pl.labelling.looks import Looks
from u2pl.labelling.ranking import class_entropy_histogram, entropy_edges
from u2pl.labelling.strategies import STRATEGIES, rank

CLASSES, SIDE = 4, 16
Seen = dict[int, tuple[Tensor, Tensor, Tensor]]  # label, entropy (SIDE, SIDE) and embedding of each image


def seen(places: list[int], seed: int = 0) -> Seen:
    draw = torch.Generator().manual_seed(seed)
    found: Seen = {}
    for place in places:
        sharp = float(torch.rand((), generator=draw)) * 6 + 0.5
        tilt = torch.tensor([2.0, 1.0, 0.0, -1.0])[:, None, None]
        scores = sharp * (torch.randn(CLASSES, SIDE, SIDE, generator=draw) + tilt)
        log = scores.log_softmax(dim=0)
        found[place] = (scores.argmax(dim=0), -(log.exp() * log).sum(dim=0), torch.randn(6, generator=draw))
    return found


def looks_at(images: Seen, folder: Path) -> Looks:
    looks = Looks(folder, {}, 100)
    for place, (label, entropy, embedding) in images.items():
        histogram = class_entropy_histogram(label[None], entropy[None], CLASSES, entropy_edges(CLASSES))[0]
        looks.add(place, Look(histogram, float(entropy.mean()), embedding))
    return looks


PLACES = [5, 0, 3, 9, 4, 11, 12, 2]


@pytest.mark.parametrize("alpha", [0.2, 0.6])
@pytest.mark.parametrize("labeled", [(), (11, 12)])
@pytest.mark.parametrize("strategy", ["typical", "expected", "entropy", "diverse"])
def test_the_ranking_is_that_of_loops(strategy: str, labeled: tuple[int, ...], alpha: float, tmp_path: Path) -> None:
    images = seen(PLACES)
    ranking = rank(looks_at(images, tmp_path), 99, labeled=labeled, strategy=strategy, alpha=alpha)
    free = sorted(set(PLACES) - set(labeled))
    assert sorted(each.place for each in ranking.suggestions) == free
    pixels = len(free) * SIDE**2
    count = [sum(int((images[place][0] == index).sum()) for place in free) for index in range(CLASSES)]
    plain = [max(each / pixels, 1e-3) ** -0.5 for each in count]
    mean = sum(each / pixels * weight for each, weight in zip(count, plain, strict=True))
    unsure = sum(int((images[place][1] >= ranking.gamma).sum()) for place in free)
    assert 0.7 * alpha < unsure / pixels <= alpha
    rows = torch.stack([images[place][2] for place in sorted(images)]).double()
    rows = (rows - rows.mean(dim=0)) / (rows.std(dim=0, correction=0) + 1e-3)
    row = dict(zip(sorted(images), (rows / rows.norm(dim=1, keepdim=True)).tolist(), strict=True))

    def areas(place: int) -> tuple[float, float]:
        label, entropy, _ = images[place]
        unreliable, weighted = 0.0, 0.0
        for y in range(SIDE):
            for x in range(SIDE):
                if float(entropy[y, x]) >= ranking.gamma:
                    unreliable += 1 / SIDE**2
                    weighted += plain[int(label[y, x])] / mean / SIDE**2
        return unreliable, weighted

    def covered(place: int, before: list[int], *, weighted: bool) -> float:
        gain = 0.0
        for other in free:
            reach = min(2.0, *(math.dist(row[other], row[known]) for known in before), 2.0)
            nearer = max(0.0, reach - math.dist(row[other], row[place]))
            gain += (areas(other)[1] if weighted else 1.0) * nearer / len(free)
        return gain

    before: list[int] = list(labeled)
    for number, each in enumerate(ranking.suggestions):
        label, entropy, _ = images[each.place]
        unreliable, _ = areas(each.place)
        distance = {place: math.dist(row[each.place], row[place]) for place in before}
        closest = min(2.0, *distance.values(), 2.0)
        value = {
            "typical": covered(each.place, before, weighted=False),
            "expected": covered(each.place, before, weighted=True),
            "entropy": float(entropy.mean()),
            "diverse": closest,
        }[strategy]
        assert each.score == pytest.approx(value, rel=0.01, abs=2e-3)
        assert each.unreliable == pytest.approx(unreliable, rel=0.01, abs=1e-4)
        assert each.entropy == pytest.approx(float(entropy.mean()), rel=1e-5)
        assert each.nearest == (min(distance, key=lambda place: distance[place]) if distance else None)
        share = [float((label == index).float().mean()) for index in range(CLASSES)]
        assert set(each.classes) == {index for index in range(CLASSES) if share[index] >= 0.01}
        assert [share[index] for index in each.classes] == sorted((share[i] for i in each.classes), reverse=True)
        before.append(each.place)
        if number and strategy != "diverse":
            assert each.score <= ranking.suggestions[number - 1].score + 1e-6


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_order_of_looking_does_not_count(strategy: str, tmp_path: Path) -> None:
    images = seen(PLACES)
    rankings = []
    for number, places in enumerate((PLACES, sorted(PLACES), PLACES)):
        folder = tmp_path / str(number)
        folder.mkdir()
        rankings.append(rank(looks_at({place: images[place] for place in places}, folder), 5, strategy=strategy))
    assert rankings[0] == rankings[1] == rankings[2]
    assert len(rankings[0].suggestions) == 5


def test_random_is_of_the_seed(tmp_path: Path) -> None:
    looks = looks_at(seen(PLACES), tmp_path)
    orders = [[each.place for each in rank(looks, 8, strategy="random", seed=seed).suggestions] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(PLACES)


@pytest.mark.parametrize("strategy", ["typical", "expected", "diverse"])
def test_a_twin_of_a_labeled_or_suggested_image_waits(strategy: str, tmp_path: Path) -> None:
    images = seen([1, 2, 3, 4, 5])
    images |= {11: images[1], 12: images[2], 20: images[3]}
    ranking = rank(looks_at(images, tmp_path), 99, labeled=[20], strategy=strategy)
    order = [each.place for each in ranking.suggestions]
    assert {place % 10 for place in order[:4]} == {1, 2, 4, 5}
    assert set(order[4:]) == {11 - 10 * (11 in order[:4]), 12 - 10 * (12 in order[:4]), 3}
    twins = {each.place: each.nearest for each in ranking.suggestions[4:]}
    assert twins[3] == 20
    assert all(place % 10 == nearest % 10 for place, nearest in twins.items() if place != 3 and nearest is not None)
    assert [each.score for each in ranking.suggestions[4:]] == [0.0] * 3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_image_and_one_class(strategy: str, tmp_path: Path) -> None:
    looks = Looks(tmp_path, {}, 1)
    label, entropy = torch.zeros(1, 4, 4, dtype=torch.long), torch.zeros(1, 4, 4)
    looks.add(0, Look(class_entropy_histogram(label, entropy, 1, entropy_edges(1))[0], 0.0, torch.ones(3)))
    (only,) = rank(looks, 20, strategy=strategy).suggestions
    assert (only.place, only.unreliable, only.nearest, only.classes) == (0, 0.0, None, (0,))
