"""FixMatch and UniMatch against loops over pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from assemble import mean_teacher
from torch import Tensor, nn

from u2pl.methods import EmaTeacher, FixMatch, MeanTeacher, ReliableShare, StrongViews, UniMatch
from u2pl.methods.extras.class_weights import ClassWeightCorrection
from u2pl.methods.extras.image_prior import AddImagePrior
from u2pl.methods.passes import without_dropout
from u2pl.pixels import CutMix, CutOut, NoMixing, Reliability
from u2pl.pixels.losses import BalancedCrossEntropy
from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel, SegmentationOutput

Network = Callable[..., nn.Module]
C, SIZE = 4, 8


def random_batch(seed: int = 0, size: int = 2) -> Batch:
    torch.manual_seed(seed)
    label = torch.randint(0, C, (size, SIZE, SIZE))
    label[:, :1] = IGNORE_INDEX
    weak = 2 * torch.randn(size, 3, SIZE, SIZE)
    valid = torch.ones(size, SIZE, SIZE, dtype=torch.bool)
    valid[0, :, :2] = False
    jitter = [0.3 * torch.rand_like(weak) for _ in range(2)]
    return Batch(2 * torch.randn(size, 3, SIZE, SIZE), label, weak, weak + jitter[0], valid, weak - jitter[1])


def pixels(tensor: Tensor) -> Iterator[tuple[int, int, int]]:
    yield from product(*(range(length) for length in tensor.shape))


def loop_labels(logits: Tensor, valid: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Labels, IGNORE_INDEX where the most likely class is below the threshold; and which pixels count."""
    label = torch.full(valid.shape, IGNORE_INDEX)
    for b, y, x in pixels(valid):
        p = logits[b, :, y, x].softmax(dim=0)
        if valid[b, y, x] and p.max() >= threshold:
            label[b, y, x] = p.argmax()
    return label, valid


def loop_mix(tensor: Tensor, keep: Tensor) -> Tensor:
    mixed = tensor.clone()
    for b, y, x in pixels(keep):
        if not keep[b, y, x]:
            mixed[b, ..., y, x] = tensor[(b + 1) % len(tensor), ..., y, x]
    return mixed


def loop_loss(logits: Tensor, label: Tensor, valid: Tensor) -> float:
    """Sum over labeled pixels, over the number of valid ones."""
    total = sum(
        -logits[b, :, y, x].log_softmax(dim=0)[label[b, y, x]].item()
        for b, y, x in pixels(label)
        if label[b, y, x] != IGNORE_INDEX
    )
    return total / max(1, int(valid.sum()))


def drawn(seed: int, number: int, like: Tensor) -> list[Tensor]:
    """The masks that a method draws after this seed."""
    torch.manual_seed(seed)
    pseudo = PseudoLabel.from_logits(torch.zeros(len(like), C, SIZE, SIZE))
    return [CutMix().draw(pseudo).keep for _ in range(number)]


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.95, 1.1])
@pytest.mark.parametrize("size", [1, 2])
def test_fixmatch(tiny_network: Network, threshold: float, size: int) -> None:
    student, batch = tiny_network(1), replace(random_batch(1, size), strong_2=None)
    student.stem[1].momentum = 0.0  # statistics stay, so that the loop sees what the method saw
    method = FixMatch(threshold=threshold)
    torch.manual_seed(5)
    losses = method(student, batch, 0.0)
    assert student.calls == [(False, size), (True, 2 * size)]
    assert student.training

    (keep,) = drawn(5, 1, batch.weak)
    with torch.no_grad():
        label, valid = loop_labels(student.eval()(batch.weak).logits, batch.valid, threshold)
        mixed = loop_mix(batch.strong, keep)
        output = student.train()(torch.cat((batch.image, mixed)))
    expected = loop_loss(output.logits[size:], loop_mix(label, keep), loop_mix(valid, keep))
    assert losses["unsupervised"].item() == pytest.approx(expected, rel=1e-4)
    inside = loop_loss(output.logits[:size], batch.label, batch.label != IGNORE_INDEX)
    assert losses["supervised"].item() == pytest.approx(inside, rel=1e-4)
    assert list(losses) == ["supervised", "unsupervised"]
    assert (expected == 0) == (threshold > 1)


@pytest.mark.parametrize("threshold", [0.5, 0.95, 1.1])
@pytest.mark.parametrize("size", [1, 2])
def test_the_weight_of_fixmatch_in_a_mean_teacher(tiny_network: Network, threshold: float, size: int) -> None:
    """A teacher that forgets at once, a threshold and the share of reliable pixels make FixMatch of a mean teacher."""
    student, batch = tiny_network(1), replace(random_batch(1, size), strong_2=None)
    student.stem[1].momentum = 0.0
    method = mean_teacher(
        student, reliability=Reliability(0.0, min_confidence=threshold), weighting=ReliableShare(), ema_decay=0.0
    )
    torch.manual_seed(5)
    losses = method(student, batch, 0.0)
    (keep,) = drawn(5, 1, batch.weak)
    with torch.no_grad():
        label, valid = loop_labels(student.eval()(batch.weak).logits, batch.valid, threshold)
        output = student.train()(torch.cat((batch.image, loop_mix(batch.strong, keep))))
    expected = loop_loss(output.logits[size:], loop_mix(label, keep), loop_mix(valid, keep))
    assert losses["unsupervised"].item() == pytest.approx(expected, rel=1e-4)
    assert (expected == 0) == (threshold > 1)
    nothing = method(student, replace(batch, valid=torch.zeros_like(batch.valid)), 0.0)
    assert nothing["unsupervised"].item() == 0


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.95, 1.1])
@pytest.mark.parametrize("size", [1, 2])
def test_unimatch(tiny_network: Network, threshold: float, size: int) -> None:
    student, batch = tiny_network(1, auxiliary=True), random_batch(1, size)
    method = UniMatch(threshold=threshold)
    torch.manual_seed(5)
    losses = method(student, batch, 0.0)
    assert student.calls == [(True, 2 * size), (True, 2 * size)]

    keeps = drawn(5, 2, batch.weak)
    with torch.no_grad():
        first = student(torch.cat((batch.image, batch.weak)), dropped=size)
        label, valid = loop_labels(first.logits[size : 2 * size], batch.valid, threshold)
        views = [loop_mix(view, keep) for view, keep in zip((batch.strong, batch.strong_2), keeps, strict=True)]
        second = student(torch.cat(views))
    counts = [int(loop_mix(valid, keep).sum()) for keep in keeps]
    strong = sum(
        count * loop_loss(second.logits[i * size : (i + 1) * size], loop_mix(label, keep), loop_mix(valid, keep))
        for i, (keep, count) in enumerate(zip(keeps, counts, strict=True))
    ) / sum(counts)
    perturbed = loop_loss(first.logits[2 * size :], label, valid)
    assert losses["unsupervised"].item() == pytest.approx((strong + perturbed) / 2, rel=1e-4)
    for name, logits in (("supervised", first.logits), ("auxiliary", first.auxiliary)):
        inside = loop_loss(logits[:size], batch.label, batch.label != IGNORE_INDEX)
        assert losses[name].item() == pytest.approx(inside, rel=1e-4)
    assert list(losses) == ["supervised", "auxiliary", "unsupervised"]


def parts() -> dict[str, Any]:
    """What `auto` gives to whatever has pseudo-labels."""
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    return {
        "refiners": [ClassWeightCorrection(weight), AddImagePrior()],
        "supervised_loss": BalancedCrossEntropy(),
        "unsupervised_loss": BalancedCrossEntropy(),
    }


@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.95])  # with 0, the partition leaves out the pixel of the largest entropy
def test_a_mean_teacher_without_memory_is_fixmatch(tiny_network: Network, threshold: float, extras: bool) -> None:
    """Without an average, with alpha 0, a floor and the share of reliable pixels: step by step the same student."""
    shared: dict[str, Any] = parts() if extras else {}
    students = tiny_network(1), tiny_network(1)
    teacher = EmaTeacher(students[1], ema_decay=0.0)
    methods = (
        FixMatch(threshold=threshold, **shared),
        MeanTeacher(
            teacher, reliability=Reliability(0.0, min_confidence=threshold), weighting=ReliableShare(), **shared
        ),
    )
    optimizers = [torch.optim.SGD(student.parameters(), lr=0.5) for student in students]
    for step in range(4):
        batch = replace(random_batch(step, 2), strong_2=None)
        batch = replace(batch, prior=0.1 * torch.randn(2, C)) if extras else batch
        losses = []
        for student, method, optimizer in zip(students, methods, optimizers, strict=True):
            torch.manual_seed(step)
            losses.append(method(student, batch, step / 4))
            sum(losses[-1].values()).backward()
            optimizer.step()
            optimizer.zero_grad()
            method.after_step(student)
        assert list(losses[0]) == list(losses[1])
        for name in losses[0]:
            torch.testing.assert_close(losses[0][name], losses[1][name])
    for one, other in zip(students[0].parameters(), students[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("method", [FixMatch, UniMatch])
def test_refiners_change_pseudo_labels(tiny_network: Network, method: type) -> None:
    """A prior that excludes all classes but one leaves labels of this class only."""
    batch = random_batch(3)
    prior = torch.full((2, C), -1e4)
    prior[:, 2] = 0.0
    chosen = method(threshold=0.0, refiners=[AddImagePrior()])
    student = tiny_network()
    output = chosen.weak_output(student, batch)
    pseudo = chosen.make_pseudo_labels(output, replace(batch, prior=prior), 0.0)
    assert pseudo.label.unique().tolist() == [2]
    assert len(chosen.make_pseudo_labels(output, batch, 0.0).label.unique()) > 1


class Dropping(nn.Module):
    """A network with dropout, on any number of images."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.dropout = inner, nn.Dropout2d(0.5)
        self.active: list[bool] = []

    def forward(self, image: Tensor, *, dropped: int = 0) -> SegmentationOutput:
        self.active.append(self.dropout.training)
        output = self.inner(image, dropped=dropped)
        return replace(output, logits=self.dropout(output.logits))


def test_unimatch_labels_its_weak_images_without_dropout(tiny_network: Network) -> None:
    network, batch = Dropping(tiny_network()), random_batch()
    UniMatch(threshold=0.3)(network, batch, 0.0)
    assert network.active == [False, True]  # the weak pass, the strong pass
    assert network.dropout.training
    assert [mode for mode, _ in network.inner.calls] == [True, True]  # batch norm learns in both
    network.eval()
    with without_dropout(network):
        pass
    assert not network.dropout.training


@pytest.mark.parametrize("method", [FixMatch, UniMatch])
def test_pseudo_labels_have_no_gradient_and_every_parameter_has_one(tiny_network: Network, method: type) -> None:
    student = tiny_network(projection=False)
    sum(method(threshold=0.3)(student, random_batch(), 0.0).values()).backward()
    assert all(parameter.grad.any() for parameter in student.classifier.parameters())
    assert list(method().candidates(student)) == ["student"]
    assert method.semi_supervised


@pytest.mark.parametrize("method", [FixMatch, UniMatch])
def test_nothing_valid_is_zero_not_nan(tiny_network: Network, method: type) -> None:
    batch = random_batch()
    batch.valid[:] = False
    assert method(threshold=0.0)(tiny_network(), batch, 0.0)["unsupervised"].item() == 0
    erasing = method(threshold=0.0, mix=StrongViews(CutOut(area=1.0)))
    assert erasing(tiny_network(), random_batch(), 0.0)["unsupervised"].isfinite()


def test_no_mixing_keeps_every_pixel() -> None:
    pseudo = PseudoLabel.from_logits(torch.randn(2, C, 4, 4))
    assert torch.equal(NoMixing().draw(pseudo).pseudo_label(pseudo).label, pseudo.label)
