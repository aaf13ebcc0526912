"""The contrastive loss of two steps against loops over pixels, keys and classes."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from drawing import FIXED, SHARES, labels, rank_of, tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from u2pl.pixels.contrast import UnreliableContrast
from u2pl.pixels.negative_keys import NegativeKeys
from u2pl.structures import IGNORE_INDEX

Step = dict[str, Tensor]
TAU, DELTA = 0.5, 0.3


@st.composite
def steps(draw: st.DrawFn) -> tuple[list[Step], int, int]:
    """Two steps, the number of classes and r_l. Masks may be empty or full, and classes may be absent."""
    classes, dim = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    size = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3)))
    shape = (size[0], dim, *size[1:])
    values = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0])
    made = []
    for _ in range(2):
        anywhere = st.sampled_from([st.booleans(), st.just(False), st.just(True)])
        unreliable = draw(tensors(size, draw(anywhere)))
        target = draw(tensors(size, draw(st.sampled_from([labels(classes), labels(1), st.just(IGNORE_INDEX)]))))
        label = draw(tensors(size, draw(st.sampled_from([labels(classes), labels(1), st.just(IGNORE_INDEX)]))))
        made.append(
            {
                "embedding": draw(tensors(shape, values)).requires_grad_(),
                "teacher_embedding": draw(tensors(shape, values)),
                "teacher_probability": draw(tensors((size[0], classes, *size[1:]), SHARES)),
                "target": target.masked_fill(unreliable, IGNORE_INDEX),
                "label": label.masked_fill(unreliable, IGNORE_INDEX),
                "unreliable": unreliable,
            }
        )
    return made, classes, draw(st.integers(1, classes - 1))


def cosine(one: list[float], other: list[float]) -> float:
    norms = math.sqrt(sum(a * a for a in one)) * math.sqrt(sum(b * b for b in other))
    return sum(a * b for a, b in zip(one, other, strict=True)) / norms if norms else 0.0


def loop_losses(made: list[Step], classes: int, low: int) -> list[float]:
    """L_c of each step. Every queue holds all keys, and every set is gone through in turn."""
    queues: list[list[list[float]]] = [[] for _ in range(classes)]
    found = []
    for step in made:
        batch, height, width = step["label"].shape
        places = list(product(range(batch), range(height), range(width)))
        anchors: list[list[tuple[int, int, int]]] = [[] for _ in range(classes)]
        for (b, y, x), c in product(places, range(classes)):
            probability = step["teacher_probability"][b, :, y, x].tolist()
            if step["target"][b, y, x] == c and probability[c] > DELTA:
                anchors[c].append((b, y, x))
            rank, true = rank_of(probability, c), int(step["label"][b, y, x])
            hard = true not in (IGNORE_INDEX, c) and rank < low
            if hard or (bool(step["unreliable"][b, y, x]) and rank >= low):
                queues[c].append(step["teacher_embedding"][b, :, y, x].tolist())
        number, losses = len(places), []
        for c in range(classes):
            if not anchors[c] or not queues[c]:
                continue
            teacher = [step["teacher_embedding"][b, :, y, x].tolist() for b, y, x in anchors[c]]
            centre = [sum(values) / len(teacher) for values in zip(*teacher, strict=True)]
            keys = [centre, *(queues[c][k % len(queues[c])] for k in range(2 * number))]
            total = 0.0
            for k in range(number):
                b, y, x = anchors[c][k % len(anchors[c])]
                anchor = step["embedding"][b, :, y, x].tolist()
                scores = [math.exp(cosine(anchor, key) / TAU) for key in keys]
                total -= math.log(scores[0] / sum(scores))
            losses.append(total / number)
        found.append(sum(losses) / len(losses) if losses else 0.0)
    return found


@given(steps())
@settings(FIXED, max_examples=200)
def test_two_steps(drawn: tuple[list[Step], int, int]) -> None:
    made, classes, low = drawn
    batch, dim, height, width = made[0]["embedding"].shape
    number = batch * height * width
    contrast = UnreliableContrast(
        classes,
        dim,
        negative_keys=NegativeKeys(low, classes),
        min_probability=DELTA,
        temperature=TAU,
        anchors=number,
        negatives=2 * number,
        bank_size=2 * number,
        keys_per_step=number,
    )
    for step, expected in zip(made, loop_losses(made, classes, low), strict=True):
        loss = contrast(**step)
        assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        (gradient,) = torch.autograd.grad(loss, step["embedding"])
        assert gradient.isfinite().all()
        anchors = step["target"] != IGNORE_INDEX
        assert not gradient.transpose(0, 1)[:, ~anchors].any()  # only anchors learn


@given(st.integers(2, 5), st.integers(1, 3), st.integers(0, 50), st.integers(1, 3))
@settings(FIXED, max_examples=40)
def test_a_queue_that_overflows_stays_finite(classes: int, bank_size: int, seed: int, steps: int) -> None:
    torch.manual_seed(seed)
    contrast = UnreliableContrast(classes, 2, bank_size=bank_size, keys_per_step=bank_size, anchors=3, negatives=5)
    for _ in range(steps):
        label = torch.randint(0, classes, (1, 3, 3))
        unreliable = torch.rand(1, 3, 3) < 0.5
        loss = contrast(
            torch.randn(1, 2, 3, 3, requires_grad=True),
            torch.randn(1, 2, 3, 3),
            torch.rand(1, classes, 3, 3),
            target=label.masked_fill(unreliable, IGNORE_INDEX),
            label=torch.full_like(label, IGNORE_INDEX),
            unreliable=unreliable,
        )
        assert loss.isfinite()
        assert loss.item() >= 0
    assert contrast.bank.fill.max() <= bank_size
