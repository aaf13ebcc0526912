"""UniMatch V2 against loops over pixels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_fixmatch import C, drawn, loop_labels, loop_loss, loop_mix, random_batch
from torch import nn

from u2pl.methods import EmaTeacher, UniMatchV2
from u2pl.structures import IGNORE_INDEX

Network = Callable[..., nn.Module]


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.95, 1.1])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_step(tiny_network: Network, threshold: float, size: int) -> None:
    student, teacher, batch = tiny_network(1), EmaTeacher(tiny_network(2)), random_batch(1, size)
    teacher.started = True  # other weights than the student's
    method = UniMatchV2(teacher, threshold=threshold)
    torch.manual_seed(5)
    losses = method(student, batch, 0.0)
    assert student.calls == [(True, 3 * size)]
    assert teacher.network.calls == [(False, size)]

    keeps = drawn(5, 2, batch.weak)
    with torch.no_grad():
        label, valid = loop_labels(teacher(batch.weak).logits, batch.valid, threshold)
        views = [loop_mix(view, keep) for view, keep in zip((batch.strong, batch.strong_2), keeps, strict=True)]
        output = student(torch.cat((batch.image, *views)), complementary=size)
    counts = [int(loop_mix(valid, keep).sum()) for keep in keeps]
    strong = sum(
        count * loop_loss(output.logits[(i + 1) * size : (i + 2) * size], loop_mix(label, keep), loop_mix(valid, keep))
        for i, (keep, count) in enumerate(zip(keeps, counts, strict=True))
    ) / sum(counts)
    assert losses["unsupervised"].item() == pytest.approx(strong, rel=1e-4)
    inside = loop_loss(output.logits[:size], batch.label, batch.label != IGNORE_INDEX)
    assert losses["supervised"].item() == pytest.approx(inside, rel=1e-4)
    assert list(losses) == ["supervised", "unsupervised"]
    assert strong > 0 or threshold > 0.9
    assert strong == 0 or threshold <= 1


def test_the_teacher_labels_from_the_first_step_and_follows(tiny_network: Network) -> None:
    student = tiny_network(1)
    method = UniMatchV2(EmaTeacher(tiny_network(2), ema_decay=0.996), threshold=0.0)
    loss = method(student, random_batch(), 0.0)["unsupervised"]
    assert loss > 0
    torch.testing.assert_close(method.teacher.network.classifier.weight, student.classifier.weight)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in student.classifier.parameters())
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    with torch.no_grad():
        student.classifier.weight.add_(1.0)
    for _ in range(2):
        before = method.teacher.network.classifier.weight.clone()
        m = min(1 - 1 / (method.teacher.updates + 1), 0.996)
        method.after_step(student)
        expected = m * before + (1 - m) * student.classifier.weight
        torch.testing.assert_close(method.teacher.network.classifier.weight, expected)
    assert list(method.candidates(student)) == ["student", "teacher"]


def test_nothing_valid_is_zero_not_nan(tiny_network: Network) -> None:
    batch = random_batch()
    batch.valid[:] = False
    assert UniMatchV2(EmaTeacher(tiny_network()), threshold=0.0)(tiny_network(), batch, 0.0)["unsupervised"] == 0


def test_what_it_needs(tiny_network: Network) -> None:
    assert (UniMatchV2.strong_views, UniMatchV2.has_teacher, UniMatchV2.has_contrast) == (2, True, False)
    counts = UniMatchV2(EmaTeacher(tiny_network()), threshold=0.5).diagnose(tiny_network(), random_batch(), 0.0)
    assert counts == {}  # there is no teacher yet
    assert C == 4
