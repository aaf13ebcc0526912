"""Label propagation over whole images, against loops; what becomes of classes that all, or no, labels show."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from u2pl.pixels import image_prior as module
from u2pl.pixels.image_prior import apart, image_prior, named, propagate, softmax_regression


def slow_propagate(features: Tensor, labels: Tensor, neighbours: int, damping: float) -> list[list[float]]:
    """Pixel by pixel, so to speak: every number in a loop."""
    rows = features.double().tolist()
    count, classes = len(rows), labels.shape[1]
    weight = [[0.0] * count for _ in range(count)]
    for i in range(count):
        alike = {j: sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) for j in range(count) if j != i}
        for j in sorted(alike, key=lambda j: -alike[j])[:neighbours]:
            weight[i][j] += max(alike[j], 0.0) ** 3
            weight[j][i] += max(alike[j], 0.0) ** 3
    degree = [sum(row) for row in weight]
    start = [labels[i].tolist() if i < len(labels) else [0.0] * classes for i in range(count)]
    spread = start
    for _ in range(100):
        new = []
        for i in range(count):
            line = []
            for c in range(classes):
                arriving = 0.0
                for j in range(count):
                    if weight[i][j] > 0:
                        arriving += weight[i][j] / math.sqrt(degree[i] * degree[j]) * spread[j][c]
                line.append(damping * arriving + (1 - damping) * start[i][c])
            new.append(line)
        spread = new
    return spread


@pytest.mark.parametrize(("count", "labeled", "neighbours"), [(12, 4, 3), (9, 9, 2), (5, 1, 10), (2, 1, 1)])
def test_labels_spread_as_loops_say(count: int, labeled: int, neighbours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 4)  # several chunks
    generator = torch.Generator().manual_seed(count)
    features = F.normalize(torch.randn(count, 6, generator=generator), dim=1)
    labels = torch.rand(labeled, 3, generator=generator)
    expected = slow_propagate(features, labels, min(neighbours, count - 1), 0.8)
    found = propagate(features, labels, neighbours=neighbours, damping=0.8)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-4)


def groups(sizes: tuple[int, ...]) -> Tensor:
    """Images of a few kinds that are hardly like another kind."""
    generator = torch.Generator().manual_seed(0)
    kinds = len(sizes)
    centres = torch.eye(kinds) * 5
    images = [
        centre + torch.rand(size, kinds, generator=generator) for centre, size in zip(centres, sizes, strict=True)
    ]
    return F.normalize(torch.cat(images), dim=1)


def ordered(sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Features, the first image of each kind first, and the kind of each."""
    features, kind = groups(sizes), torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    first = [sum(sizes[:k]) for k in range(len(sizes))]
    order = first + [i for i in range(len(kind)) if i not in first]
    return features[order], kind[order]


def test_an_image_is_thought_to_show_what_images_like_it_show() -> None:
    features, kind = ordered((8, 6, 4))
    shown = torch.tensor([[True, True, False, False], [True, False, True, False], [True, False, False, True]])
    prior = image_prior(features, shown, sharpness=2.0, neighbours=3)
    assert torch.equal(prior[:, 1:].argmax(dim=1), kind)
    assert torch.equal(prior[:, 0], torch.zeros(18))  # all labels show it
    assert (prior <= 0).all()
    assert (prior[:, 1:].amax(dim=1) == 0).all()
    sharper = image_prior(features, shown, sharpness=4.0, neighbours=3)
    torch.testing.assert_close(sharper, 2 * prior)


def test_a_class_with_few_labels_is_not_thought_rare() -> None:
    """Four labels of one kind and one of another: the images of both kinds are as sure of their own."""
    features, kind = ordered((10, 10))
    order = [0, *[i for i in range(20) if kind[i] == 0][1:4], 1, *range(2, 20)]
    order = list(dict.fromkeys(order))
    features, kind = features[order], kind[order]
    shown = torch.zeros(5, 3, dtype=torch.bool)
    shown[:4, 1], shown[4, 2] = True, True
    shown = torch.cat((shown, torch.zeros(4, 3, dtype=torch.bool)))  # four that show neither: 1 is no common class
    prior = image_prior(features, shown, sharpness=1.0, neighbours=4)
    assert torch.equal(prior[9:, 1:].argmax(dim=1), kind[9:])


def test_a_class_that_no_label_shows_is_left_alone() -> None:
    features, _ = ordered((5, 5))
    shown = torch.tensor([[False, True, False], [False, False, True]])
    prior = image_prior(features, shown, sharpness=3.0)
    assert torch.equal(prior[:, 0], torch.zeros(10))
    assert prior.isfinite().all()


@pytest.mark.parametrize("shown", [[[True]], [[False]]])
def test_one_class_says_nothing(shown: list[list[bool]]) -> None:
    assert torch.equal(
        image_prior(F.normalize(torch.rand(4, 3), dim=1), torch.tensor(shown), sharpness=4.0), torch.zeros(4, 1)
    )


def test_images_that_are_all_alike_say_nothing() -> None:
    shown = torch.tensor([[True, False], [False, True]])
    prior = image_prior(torch.ones(6, 3) / 3**0.5, shown, sharpness=4.0)
    torch.testing.assert_close(prior[2:], torch.zeros(4, 2), atol=1e-4, rtol=0)  # both labels reach them alike


def test_images_that_are_like_no_other_say_nothing() -> None:
    shown = torch.tensor([[True, False], [False, True]])
    prior = image_prior(torch.eye(6), shown, sharpness=4.0)
    assert prior.isfinite().all()
    assert (prior[2:] == 0).all()  # unlabeled ones: no label reaches them


def slow_apart(shown: list[list[bool]]) -> list[bool]:
    """Classes dropped one by one."""
    classes = range(len(shown[0]))
    told = {c for c in classes if 0 < sum(row[c] for row in shown) <= len(shown) / 2}
    while told:
        alone = {}
        for c in told:
            images = [row for row in shown if row[c]]
            alone[c] = sum(not any(row[d] for d in told - {c}) for row in images) / len(images)
        least = min(sorted(told), key=lambda c: alone[c])
        if alone[least] >= 0.5:
            break
        told.remove(least)
    return [c in told for c in classes]


@pytest.mark.parametrize("seed", range(20))
def test_classes_apart_are_what_loops_find(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shown = torch.rand(1 + seed, 5, generator=generator) < torch.tensor([0.9, 0.3, 0.3, 0.2, 0.1])
    assert apart(shown).tolist() == slow_apart(shown.tolist())


def test_a_class_that_comes_with_others_is_not_apart() -> None:
    """Background, horse, cow, person: a horse in two of three images comes with a person."""
    shown = torch.tensor([[1, 1, 0, 1], [1, 1, 0, 1], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]]).bool()
    assert apart(shown).tolist() == [False, True, True, False]
    prior = image_prior(F.normalize(torch.rand(9, 3), dim=1), shown, sharpness=4.0)
    assert torch.equal(prior[:, [0, 3]], torch.zeros(9, 2))


def test_the_prior_is_relative_to_the_mean_of_a_class_and_to_the_likeliest_class() -> None:
    """By loops, from what :func:`propagate` gives; images of random features are like images of all kinds."""
    features = F.normalize(torch.rand(30, 5, generator=torch.Generator().manual_seed(3)), dim=1)
    shown = torch.tensor([[True, c == 1, c == 2, c == 3] for c in (1, 1, 1, 1, 2, 2, 3)])
    shown[:4, 1] = torch.tensor([True, True, True, False])
    score = propagate(features, shown.float(), neighbours=5).tolist()  # one in fifty would be none
    prior = image_prior(features, shown, sharpness=3.0)
    mean = [sum(row[c] for row in score) / 30 for c in range(4)]
    for i, row in enumerate(score):
        ratio = [max(row[c] / mean[c], 1e-6) for c in (1, 2, 3)]
        expected = [3 * math.log(one / max(ratio)) for one in ratio]
        assert prior[i].tolist() == pytest.approx([0.0, *expected], abs=1e-3)


def test_labeled_images_are_named_as_when_each_is_left_out() -> None:
    """One propagation without each of them."""
    generator = torch.Generator().manual_seed(5)
    features, kind = ordered((8, 8, 8))
    order = torch.randperm(24, generator=generator)
    features, kind = features[order], kind[order]
    features = F.normalize(features + 0.3 * torch.randn(features.shape, generator=generator))
    shown = torch.zeros(14, 4, dtype=torch.bool)
    shown[:, 0] = True
    shown[torch.arange(12), 1 + kind[:12]] = True  # two images show nothing but the background
    score = torch.zeros(14, 4)
    for i in range(14):
        others = shown.float()
        others[i] = 0
        score[i] = propagate(features, others, neighbours=3)[i]
    assert apart(shown).tolist() == [False, True, True, True]
    expected = []
    for i in range(14):
        ratio = [float(score[i, c] / score[:, c].mean()) for c in (1, 2, 3)]
        expected.append(bool(shown[i, 1 + ratio.index(max(ratio))]))
    found = named(features, shown, neighbours=3).tolist()
    assert found == expected
    assert 4 < sum(found) < 12  # some are wrong
    assert not any(found[12:])


def test_no_image_is_named_by_its_own_label() -> None:
    shown = torch.tensor([[True, False], [False, True]])
    assert named(torch.eye(4)[:, :3] + 0.1, shown).tolist() == [False, False]


def regression_loss(weight: Tensor, bias: Tensor, features: Tensor, prior: Tensor, told: list[int]) -> float:
    """Mean cross-entropy to the softmax of the prior over the told classes, and weight decay, in loops."""
    total = 0.0
    for row, wanted in zip(features.tolist(), prior.tolist(), strict=True):
        score = {c: sum(w * x for w, x in zip(weight[c].tolist(), row, strict=True)) + bias[c].item() for c in told}
        whole = sum(math.exp(one) for one in score.values())
        target = {c: math.exp(wanted[c]) / sum(math.exp(wanted[k]) for k in told) for c in told}
        total -= sum(target[c] * math.log(math.exp(score[c]) / whole) for c in told)
    return total / len(features) + 1e-4 * sum(w**2 for row in weight.tolist() for w in row)


@pytest.mark.parametrize("told", [[1, 2, 3], [0, 2]])
def test_a_softmax_learns_the_prior(told: list[int]) -> None:
    """The loss, decay of the weights included, is flat around what is found, and smaller than at the start."""
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(12, 3, generator=generator), dim=1)
    prior = -4 * torch.rand(12, 4, generator=generator)
    weight, bias = softmax_regression(features, prior, torch.tensor([c in told for c in range(4)]))
    assert weight.shape == (4, 3)
    others = [c for c in range(4) if c not in told]
    assert not weight[others].any()
    assert not bias[others].any()
    assert not weight.requires_grad
    best = regression_loss(weight.double(), bias.double(), features, prior, told)
    assert best < regression_loss(0 * weight, 0 * bias, features, prior, told)
    weight, bias, step = weight.double(), bias.double(), 1e-3
    for parameter in (weight, bias):
        for place in range(parameter.numel()):
            value, around = parameter.view(-1)[place].item(), []
            for moved in (value + step, value - step):
                parameter.view(-1)[place] = moved
                around.append(regression_loss(weight, bias, features, prior, told))
            parameter.view(-1)[place] = value
            assert abs(around[0] - around[1]) / (2 * step) < 1e-4


def test_decay_bounds_the_weights_where_the_prior_is_certain() -> None:
    """Where the loss is flat, a weight of image k's own feature is (target - probability) / (images * 2 * decay)."""
    prior = -50 * (1 - torch.eye(3))
    weight, bias = softmax_regression(torch.eye(3), prior, torch.ones(3, dtype=torch.bool))
    for k in range(3):
        score = [weight[c, k].item() + bias[c].item() for c in range(3)]
        total = sum(math.exp(one) for one in score)
        for c in range(3):
            expected = (float(c == k) - math.exp(score[c]) / total) / (3 * 2 * 1e-4)
            assert weight[c, k].item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("told", [[False, False], [False, True]])
def test_a_softmax_of_one_class_or_none_has_nothing_to_learn(told: list[bool]) -> None:
    weight, bias = softmax_regression(F.normalize(torch.rand(5, 3), dim=1), torch.zeros(5, 2), torch.tensor(told))
    assert not weight.any()
    assert not bias.any()
