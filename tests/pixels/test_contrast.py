import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from u2pl.pixels import contrast as module
from u2pl.pixels.contrast import (
    UnreliableContrast,
    anchor_mask,
    class_centres,
    class_rank,
    default_low_rank,
    gather_pixels,
    info_nce,
    negative_mask,
)
from u2pl.structures import IGNORE_INDEX

B, C, D, H, W = 2, 5, 4, 3, 4
PLACES = list(product(range(B), range(H), range(W)))


def ranks_of(p: list[float]) -> list[int]:
    return [sum(q > p[c] or (q == p[c] and j < c) for j, q in enumerate(p)) for c in range(len(p))]


def random_step(seed: int, absent: int | None = None) -> dict[str, Tensor]:
    """A step of one labeled and one unlabeled image, with ignored and padded pixels."""
    torch.manual_seed(seed)
    logits = torch.randn(B, C, H, W) * 2
    if absent is not None:
        logits[:, absent] -= 50
    label = torch.full((B, H, W), IGNORE_INDEX)
    label[0] = torch.where(torch.rand(H, W) < 0.6, logits[0].argmax(dim=0), torch.randint(0, C, (H, W)))
    label[0, 0, 0] = IGNORE_INDEX
    if absent is not None:
        label[label == absent] = (absent + 1) % C
    unreliable = torch.zeros(B, H, W, dtype=torch.bool)
    unreliable[1] = torch.rand(H, W) < 0.4
    target = label.clone()
    target[1] = torch.where(unreliable[1], IGNORE_INDEX, logits[1].argmax(dim=0))
    unreliable[1, 0, 0], target[1, 0, 0] = False, IGNORE_INDEX
    return {
        "embedding": torch.randn(B, D, H, W, requires_grad=True),
        "teacher_embedding": torch.randn(B, D, H, W),
        "teacher_probability": logits.softmax(dim=1),
        "target": target,
        "label": label,
        "unreliable": unreliable,
    }


def is_anchor(step: dict[str, Tensor], c: int, place: tuple[int, ...], delta: float = 0.3) -> bool:
    b, y, x = place
    return bool(step["target"][place] == c and step["teacher_probability"][b, c, y, x] > delta)


def is_negative(step: dict[str, Tensor], c: int, place: tuple[int, ...], low: int, high: int) -> bool:
    b, y, x = place
    rank = ranks_of(step["teacher_probability"][b, :, y, x].tolist())[c]
    if step["unreliable"][place]:
        return low <= rank < high
    return bool(step["label"][place] not in (IGNORE_INDEX, c)) and rank < low


def loop_contrast(step: dict[str, Tensor], low: int, high: int, tau: float = 0.5) -> float:
    """L_c with every anchor and every negative of the step."""
    losses = []
    for c in range(C):
        anchors = [place for place in PLACES if is_anchor(step, c, place)]
        negatives = [place for place in PLACES if is_negative(step, c, place, low, high)]
        if not anchors or not negatives:
            continue
        at = lambda name, place: step[name][place[0], :, place[1], place[2]].detach()  # noqa: E731
        centre = sum(at("teacher_embedding", place) for place in anchors) / len(anchors)
        total = 0.0
        for place in anchors:
            z = at("embedding", place)
            positive = math.exp(F.cosine_similarity(z, centre, dim=0).item() / tau)
            others = [F.cosine_similarity(z, at("teacher_embedding", n), dim=0).item() for n in negatives]
            total -= math.log(positive / (positive + sum(math.exp(other / tau) for other in others)))
        losses.append(total / len(anchors))
    return sum(losses) / max(1, len(losses))


def draw_whole_set(mask: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Stands in for the random draw: the members in order, cyclically."""
    index = torch.zeros(len(mask), number, dtype=torch.long)
    for c in range(len(mask)):
        members = mask[c].nonzero().flatten().tolist()
        for k in range(number):
            index[c, k] = members[k % len(members)] if members else 0
    return index, mask.sum(dim=1)


#: The loss is a mean over drawn pixels: sets of 1..8 members are seen evenly in a multiple of 840 draws.
EVEN = 840


def whole_set_contrast(**options: object) -> UnreliableContrast:
    return UnreliableContrast(C, D, anchors=EVEN, negatives=EVEN, bank_size=EVEN, keys_per_step=EVEN, **options)


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
@pytest.mark.parametrize("delta", [0.0, 0.3, 0.8])
def test_anchors(seed: int, delta: float) -> None:
    step = random_step(seed)
    mask = anchor_mask(step["target"], step["teacher_probability"], min_probability=delta)
    for place, c in product(PLACES, range(C)):
        assert mask[place[0], c, place[1], place[2]] == is_anchor(step, c, place, delta)


def test_an_anchor_is_surer_than_the_bound() -> None:
    probability = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1)
    assert not anchor_mask(torch.zeros(1, 1, 1).long(), probability, min_probability=0.5).any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("low", "high"), [(1, 2), (1, 5), (2, 4), (3, 5)])
def test_negatives(seed: int, low: int, high: int) -> None:
    step = random_step(seed)
    rank = class_rank(step["teacher_probability"])
    mask = negative_mask(rank, step["label"], step["unreliable"], low_rank=low, high_rank=high)
    for place, c in product(PLACES, range(C)):
        assert mask[place[0], c, place[1], place[2]] == is_negative(step, c, place, low, high), (place, c)


def test_negatives_are_not_gated_by_the_pixels_own_label() -> None:
    # Two pixels, four classes, most likely first: a labeled one of class 0 and an unreliable one.
    rank = torch.arange(4).view(1, 4, 1, 1).expand(1, 4, 1, 2)
    label, unreliable = torch.tensor([[[0, IGNORE_INDEX]]]), torch.tensor([[[False, True]]])
    mask = negative_mask(rank, label, unreliable, low_rank=2, high_rank=4)
    assert mask[0, :, 0, 0].tolist() == [False, True, False, False]  # a hard negative of class 1, not of its own
    assert mask[0, :, 0, 1].tolist() == [False, False, True, True]  # of classes other than its pseudo-label


@pytest.mark.parametrize("seed", range(3))
def test_class_centres(seed: int) -> None:
    torch.manual_seed(seed)
    embedding, members = torch.randn(B, D, H, W), torch.rand(B, C, H, W) < 0.3
    members[:, 2] = False
    centres = class_centres(embedding, members)
    for c in range(C):
        own = [embedding[b, :, y, x] for b, y, x in PLACES if members[b, c, y, x]]
        expected = sum(own) / len(own) if own else torch.zeros(D)
        torch.testing.assert_close(centres[c], expected)
    assert not centres[2].any()


def test_gather_pixels() -> None:
    embedding, index = torch.randn(B, D, H, W), torch.randint(0, B * H * W, (3, 7))
    keys = gather_pixels(embedding, index)
    for c, k in product(range(3), range(7)):
        b, y, x = PLACES[index[c, k]]
        assert torch.equal(keys[c, k], embedding[b, :, y, x])


@pytest.mark.parametrize("temperature", [0.5, 0.07])
def test_info_nce(temperature: float) -> None:
    torch.manual_seed(0)
    anchors, positives, negatives = torch.randn(3, 4, D), torch.randn(3, D), torch.randn(3, 6, D)
    loss = info_nce(anchors, positives, negatives, temperature=temperature)
    for c in range(3):
        total = 0.0
        for anchor in anchors[c]:
            keys = [positives[c], *negatives[c]]
            scores = [math.exp(F.cosine_similarity(anchor, key, dim=0).item() / temperature) for key in keys]
            total -= math.log(scores[0] / sum(scores))
        assert loss[c].item() == pytest.approx(total / 4, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("absent", [None, 1])
@pytest.mark.parametrize(("low", "high"), [(1, 5), (2, 4)])
def test_contrast_of_whole_sets(
    monkeypatch: pytest.MonkeyPatch, seed: int, absent: int | None, low: int, high: int
) -> None:
    monkeypatch.setattr(module, "draw_members", draw_whole_set)
    # every negative of the step sits in the bank equally often, and so does every anchor in the mean
    step = random_step(seed, absent)
    contrast = whole_set_contrast(low_rank=low, high_rank=high)
    counts = [sum(is_negative(step, c, place, low, high) for place in PLACES) for c in range(C)]
    contrast.negatives = math.lcm(*(count for count in counts if count))
    anchors = [sum(is_anchor(step, c, place) for place in PLACES) for c in range(C)]
    contrast.anchors = math.lcm(*(count for count in anchors if count))
    loss = contrast(**step)
    assert contrast.bank.fill.tolist() == counts
    # the loop counts every negative once, the draw repeats each of n negatives N / n times
    expected = loop_contrast_of_draw(step, low, high, contrast.negatives)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def loop_contrast_of_draw(step: dict[str, Tensor], low: int, high: int, number: int, tau: float = 0.5) -> float:
    losses = []
    for c in range(C):
        anchors = [place for place in PLACES if is_anchor(step, c, place)]
        negatives = [place for place in PLACES if is_negative(step, c, place, low, high)]
        if not anchors or not negatives:
            continue
        embeddings = {
            name: {place: step[name][place[0], :, place[1], place[2]].detach() for place in PLACES}
            for name in ("embedding", "teacher_embedding")
        }
        centre = sum(embeddings["teacher_embedding"][place] for place in anchors) / len(anchors)
        total = 0.0
        for place in anchors:
            z = embeddings["embedding"][place]
            positive = math.exp(F.cosine_similarity(z, centre, dim=0).item() / tau)
            others = [F.cosine_similarity(z, embeddings["teacher_embedding"][n], dim=0).item() for n in negatives]
            repeated = number / len(negatives) * sum(math.exp(other / tau) for other in others)
            total -= math.log(positive / (positive + repeated))
        losses.append(total / len(anchors))
    return sum(losses) / max(1, len(losses))
