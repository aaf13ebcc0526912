"""Which images a network is shown, and that each part of its output is that of the right ones."""

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from u2pl.methods.ema import EmaTeacher
from u2pl.methods.passes import student_pass, teacher_pass
from u2pl.methods.strong_views import MixedViews
from u2pl.structures import Batch, PseudoLabel, SegmentationOutput

Network = Callable[..., nn.Module]
SIZE = 8


def random_batch(labeled: int = 2, unlabeled: int = 3) -> Batch:
    torch.manual_seed(0)
    weak = torch.randn(unlabeled, 3, SIZE, SIZE)
    return Batch(torch.randn(labeled, 3, SIZE, SIZE), torch.zeros(labeled, SIZE, SIZE).long(), weak, weak + 1)


def teacher_of(network: nn.Module) -> EmaTeacher:
    """A teacher that has this very network."""
    teacher = EmaTeacher(network)
    teacher.network = network
    return teacher


def with_seeds(batch: Batch) -> Batch:
    """The weak images also come after the labeled ones."""
    assert batch.weak is not None
    label = torch.cat((batch.label, torch.zeros_like(batch.weak[:, 0]).long()))
    return replace(batch, image=torch.cat((batch.image, batch.weak)), label=label, seeded=True)


def views_of(batch: Batch, number: int) -> MixedViews:
    """So many strong views of each image, not mixed at all."""
    assert batch.strong is not None
    images = torch.cat([batch.strong + view for view in range(number)])
    return MixedViews(images, PseudoLabel.from_logits(torch.zeros(len(images), 4, SIZE, SIZE)), [])


def assert_same(one: SegmentationOutput, other: SegmentationOutput) -> None:
    for field in fields(SegmentationOutput):
        values = getattr(one, field.name), getattr(other, field.name)
        if values[0] is None or values[1] is None:
            assert values == (None, None), field.name
        else:
            torch.testing.assert_close(*values)


@pytest.mark.parametrize("heads", [{}, {"auxiliary": True, "classification": True}, {"projection": False}])
def test_an_output_is_cut_and_joined_as_its_images_are(tiny_network: Network, heads: dict[str, bool]) -> None:
    network, images = tiny_network(**heads).eval(), random_batch(5).image
    whole = network(images)
    parts = [whole[:2], whole[2:4], whole[-1:]]
    for part, own in zip(parts, (images[:2], images[2:4], images[4:]), strict=True):
        assert_same(part, network(own))
    assert_same(SegmentationOutput.cat(parts), whole)
    assert_same(SegmentationOutput.cat([parts[1], parts[0]]), network(torch.cat((images[2:4], images[:2]))))
    assert len(whole[:0].logits) == 0


@pytest.mark.parametrize("labeled", [False, True])
def test_the_teacher_sees_weak_images_last(tiny_network: Network, labeled: bool) -> None:
    network, batch = tiny_network().eval(), random_batch()
    output = teacher_pass(teacher_of(network), batch, labeled=labeled)
    assert network.calls == [(False, 5 if labeled else 3)]
    assert_same(output[-3:], network(batch.weak))
    if labeled:
        assert_same(output[:2], network(batch.image))


@pytest.mark.parametrize("labeled", [0, 2])
@pytest.mark.parametrize("both", [False, True])
def test_where_weak_images_have_seeds_they_are_seen_once(tiny_network: Network, labeled: int, both: bool) -> None:
    """What is said of them is said again, as if they had been seen twice."""
    network, seeded = tiny_network(classification=True).eval(), with_seeds(random_batch(labeled))
    output = teacher_pass(teacher_of(network), seeded, labeled=both)
    assert network.calls == [(False, labeled + 3 if both else 3)]
    assert_same(output, teacher_pass(teacher_of(network), replace(seeded, seeded=False), labeled=both))
    assert network.calls[1:] == [(False, labeled + 6 if both else 3)]


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("dropped", [False, True])
def test_the_student_sees_all_images_at_once(tiny_network: Network, views: int, dropped: bool) -> None:
    student, batch = tiny_network(auxiliary=True).eval(), random_batch()
    mixed = views_of(batch, views)
    output = student_pass(student, batch, mixed, dropped=dropped)
    assert len(student.calls) == 1
    assert_same(output.labeled, student(batch.image))
    assert_same(output.mixed, student(mixed.image))
    assert_same(output.labeled_and_mixed, student(torch.cat((batch.image, mixed.image))))
    rest = output.whole[2 + 3 * views :]
    assert len(rest.logits) == (6 if dropped else 0)
    if dropped:
        torch.testing.assert_close(rest.logits, student(batch.weak, dropped=3).logits)
