"""The parts of the paper against loops, on whatever small inputs hypothesis draws."""

from __future__ import annotations

import math
from collections import deque
from itertools import product

import pytest
import torch
from drawing import FIXED, SHARES, labels, rank_of, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from u2pl.pixels.memory_bank import MemoryBank
from u2pl.pixels.mixing import ClassMix, CutMix, CutOut, Mixing, NoMixing, Paste
from u2pl.pixels.negative_keys import NegativeKeys, class_rank
from u2pl.pixels.reliability import class_entropy_thresholds, entropy_threshold, partition
from u2pl.structures import IGNORE_INDEX, PseudoLabel

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))  # B, H, W
ENTROPIES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 5, width=32))
RANKS = st.none() | st.integers(-1, 5) | st.integers(-1, 30)


def quantile(values: list[float], share: float) -> float:
    """Between the two values next to the place of this share, in order of size; infinity without values."""
    if not values:
        return math.inf
    ordered, place = sorted(values), share * (len(values) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return below + (above - below) * (place - math.floor(place))


@st.composite
def pseudo_labels(draw: st.DrawFn, num_classes: int = 3) -> PseudoLabel:
    size = draw(SIZES)
    label = draw(tensors(size, st.integers(0, num_classes - 1)))
    entropy, confidence = draw(tensors(size, ENTROPIES)), draw(tensors(size, SHARES))
    valid = draw(tensors(size, st.booleans()))
    reliable = valid & draw(tensors(size, st.booleans()))
    return PseudoLabel(label, entropy, confidence, valid, reliable, valid & ~reliable)


@given(pseudo_labels(), SHARES, SHARES, st.booleans())
@settings(FIXED, max_examples=150)
def test_partition(pseudo: PseudoLabel, alpha: float, floor: float, class_wise: bool) -> None:
    places = list(product(*map(range, pseudo.label.shape)))

    def threshold(c: int | None) -> float:
        chosen = [p for p in places if pseudo.valid[p] and (c is None or pseudo.label[p] == c)]
        return quantile([float(pseudo.entropy[p]) for p in chosen], 1 - alpha)

    of_all = entropy_threshold(pseudo.entropy, pseudo.valid, alpha)
    assert float(of_all) == pytest.approx(threshold(None), abs=1e-5)
    of_classes = class_entropy_thresholds(pseudo.entropy, pseudo.label, pseudo.valid, alpha)
    assert [float(of_classes[c]) for c in range(4)] == pytest.approx([threshold(c) for c in range(4)], abs=1e-5)
    after = partition(pseudo, alpha=alpha, min_confidence=floor, class_wise=class_wise)
    for p in places:
        assert bool(after.reliable[p]) + bool(after.unreliable[p]) == bool(pseudo.valid[p])
        entropy, gamma = float(pseudo.entropy[p]), threshold(int(pseudo.label[p]) if class_wise else None)
        if 0 < abs(entropy - gamma) < 1e-5:
            continue  # rounding decides
        sure = (entropy < gamma or entropy == 0) and pseudo.confidence[p] >= floor
        if entropy != gamma or entropy == 0 or float(of_classes[pseudo.label[p]] if class_wise else of_all) == gamma:
            assert bool(after.reliable[p]) == bool(pseudo.valid[p] and sure)


@given(st.data(), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans())
@settings(FIXED, max_examples=80)
def test_memory_bank_is_one_queue_per_class(data: st.DataObject, capacity: list[int], truth: bool) -> None:
    classes, smallest = len(capacity), min(capacity)
    bank = MemoryBank(capacity, 2, keep_truth=truth)
    queues: list[deque[tuple[float, int]]] = [deque(maxlen=size) for size in capacity]
    number = 0.0
    for _ in range(data.draw(st.integers(0, 6))):
        count = data.draw(st.integers(1, smallest))
        keep = data.draw(tensors((classes, count), st.booleans()))
        keys, true = torch.zeros(classes, count, 2), torch.zeros(classes, count, dtype=torch.long)
        for c, k in product(range(classes), range(count)):
            number += 1
            keys[c, k], true[c, k] = torch.tensor([number, -number]), int(number) % 7
            if keep[c, k]:
                queues[c].append((number, int(number) % 7))
        bank.push(keys, keep, true if truth else None)
    assert bank.fill.tolist() == list(map(len, queues))
    for c, queue in enumerate(queues):
        begin = sum(capacity[:c])
        held = bank.keys[begin : begin + len(queue)]
        assert sorted(held[:, 0].tolist()) == sorted(key for key, _ in queue)
        assert torch.equal(held[:, 0], -held[:, 1])
        if bank.truth is not None:
            known = dict(zip(held[:, 0].tolist(), bank.truth[begin : begin + len(queue)].tolist(), strict=True))
            assert known == dict(queue)
    wanted = data.draw(st.integers(1, 7))
    for queue, drawn in zip(queues, bank.draw(wanted), strict=True):
        if queue:
            assert set(drawn[:, 0].tolist()) <= {key for key, _ in queue}
            assert len(set(drawn[:, 0].tolist())) == min(wanted, len(queue))
    with pytest.raises(ValueError, match="do not fit"):
        bank.push(torch.zeros(classes, smallest + 1, 2), torch.zeros(classes, smallest + 1, dtype=torch.bool))


MIXINGS = st.one_of(st.builds(CutMix, SHARES), st.builds(CutOut, SHARES), st.just(ClassMix(3)), st.just(NoMixing()))


@given(pseudo_labels(), MIXINGS, st.integers(0, 100), st.sampled_from([1, 2]))
@settings(FIXED, max_examples=150)
def test_a_mixed_pixel_comes_from_one_image(pseudo: PseudoLabel, mixing: Mixing, seed: int, channels: int) -> None:
    batch, height, width = pseudo.label.shape
    torch.manual_seed(seed)
    mix = mixing.draw(pseudo)
    assert mix.erase == isinstance(mixing, CutOut)
    images = torch.arange(1.0, 1 + batch * channels * height * width).view(batch, channels, height, width)
    mixed, after = mix.apply(images), mix.pseudo_label(pseudo)
    for b, y, x in product(range(batch), range(height), range(width)):
        of = b if mix.keep[b, y, x] else (b + 1) % batch
        if mix.erase and not mix.keep[b, y, x]:
            assert not mixed[b, :, y, x].any()
            assert not (after.valid | after.reliable | after.unreliable)[b, y, x]
            continue
        assert mixed[b, :, y, x].tolist() == images[of, :, y, x].tolist()
        for name in ("label", "entropy", "confidence", "valid", "reliable", "unreliable"):
            assert getattr(after, name)[b, y, x] == getattr(pseudo, name)[of, y, x]
    if isinstance(mixing, ClassMix):
        for b in range(batch):
            present = set(pseudo.label[b].flatten().tolist())
            kept = set(pseudo.label[b][mix.keep[b]].tolist())
            assert len(kept) == math.ceil(len(present) / 2)
            assert not kept & set(pseudo.label[b][~mix.keep[b]].tolist())
    if isinstance(mixing, NoMixing):
        assert torch.equal(mixed, images)


@given(st.data(), pseudo_labels())
@settings(FIXED, max_examples=60)
def test_a_pasted_pixel_is_certain(data: st.DataObject, pseudo: PseudoLabel) -> None:
    size = tuple(pseudo.label.shape)
    paste = Paste(data.draw(tensors(size, st.booleans())))
    true = data.draw(tensors(size, st.integers(0, 2)))
    after = paste.pseudo_label(pseudo, true)
    for p in product(*map(range, size)):
        got = [getattr(after, name)[p].item() for name in ("label", "entropy", "valid", "reliable", "unreliable")]
        if paste.take[p]:
            assert got == [true[p].item(), 0.0, True, True, False]
        else:
            before = (pseudo.label, pseudo.entropy, pseudo.valid, pseudo.reliable, pseudo.unreliable)
            assert got == [values[p].item() for values in before]


@given(st.data(), st.integers(2, 6), SIZES)
@settings(FIXED, max_examples=100)
def test_negative_keys(data: st.DataObject, classes: int, size: tuple[int, int, int]) -> None:
    batch, height, width = size
    probability = data.draw(tensors((batch, classes, height, width), SHARES))
    label, unreliable = data.draw(tensors(size, labels(classes))), data.draw(tensors(size, st.booleans()))
    low = data.draw(st.integers(1, classes - 1))
    high = data.draw(st.integers(low + 1, classes))
    rank = class_rank(probability)
    mask = NegativeKeys(low, high).mask(rank, label, unreliable)
    for b, c, y, x in product(range(batch), range(classes), range(height), range(width)):
        expected = rank_of(probability[b, :, y, x].tolist(), c)
        assert rank[b, c, y, x] == expected
        hard = label[b, y, x] not in (IGNORE_INDEX, c) and expected < low
        unlikely = bool(unreliable[b, y, x]) and low <= expected < high
        assert bool(mask[b, c, y, x]) == (hard or unlikely)


@given(st.integers(1, 5) | st.integers(1, 30), RANKS, RANKS, st.booleans())
@settings(FIXED, max_examples=200)
def test_ranks_leave_a_class_between_them(classes: int, low: int | None, high: int | None, threshold: bool) -> None:
    first = (low if low is not None else min(3, max(1, classes // 4))) if threshold else 1
    after = (high if high is not None else min(20, classes)) if threshold else classes
    keys = NegativeKeys(low, high, rank_threshold=threshold)
    if 0 < first < after <= classes:
        assert keys.ranks(classes) == (first, after)
    else:
        with pytest.raises(ValueError, match="no rank between"):
            keys.ranks(classes)
