"""Crops as bytes become the views of a step."""

import torch

from u2pl.pixels.jitter import jittered
from u2pl.pixels.views import as_float, views_of
from u2pl.structures import Crops, Jitter


def crops(**options):
    image, unlabeled = torch.randint(256, (2, 2, 3, 16, 20), dtype=torch.uint8)
    label, truth = torch.randint(256, (2, 2, 16, 20), dtype=torch.uint8)
    more = {"tags": torch.rand(2, 4) > 0.5, "tagged": torch.tensor([True, False]), "prior": torch.rand(2, 4)}
    return Crops(image, label, unlabeled, torch.rand(2, 16, 20) > 0.5, truth, **{**more, **options})


def jitter(count):
    """Each image darker by another factor."""
    factors = torch.linspace(0.3, 0.9, count)
    blends = torch.tensor([1.0, 0, 0]).repeat(count, 6, 1)
    blends[:, 5, 0] = factors
    off = torch.tensor([0.0, 1, 0]).repeat(count, 1)
    return Jitter.pack(blends=blends, hue=torch.zeros(count), gray=torch.zeros(count), kernel=off).values


def test_bytes_become_floats_and_labels():
    given = crops()
    batch = views_of(given)
    assert torch.equal(batch.image, given.image.float().div_(255))
    assert torch.equal(batch.weak, given.unlabeled.float().div_(255))
    assert torch.equal(batch.strong, batch.weak)
    assert batch.strong_2 is None
    assert (batch.label.dtype, batch.truth.dtype) == (torch.int64, torch.int64)
    assert batch.label.tolist() == given.label.tolist()
    assert batch.truth.tolist() == given.truth.tolist()
    for name in ("valid", "tags", "tagged", "prior"):
        assert getattr(batch, name) is getattr(given, name)


def test_each_view_has_its_own_jitter():
    given = crops(image_jitter=jitter(2), strong_jitter=jitter(4), strong_views=2)
    batch = views_of(given)
    rows = jitter(4)
    assert torch.equal(batch.image, jittered(as_float(given.image), Jitter(jitter(2))))
    assert torch.equal(batch.weak, as_float(given.unlabeled))
    assert torch.equal(batch.strong, jittered(batch.weak, Jitter(rows[:2])))
    assert torch.equal(batch.strong_2, jittered(batch.weak, Jitter(rows[2:])))
    assert torch.allclose(batch.strong[0], batch.weak[0] * 0.3)
    assert torch.allclose(batch.strong_2[1], batch.weak[1] * 0.9)


def test_two_views_without_jitter():
    batch = views_of(crops(strong_views=2))
    assert torch.equal(batch.strong_2, batch.weak)


def test_labeled_crops_alone():
    given = crops()
    batch = views_of(Crops(given.image, given.label))
    assert torch.equal(batch.image, as_float(given.image))
    assert batch.weak is batch.strong is batch.valid is batch.truth is None


def test_floats_lie_channel_by_channel():
    """As networks got them before images travelled with the channels of a pixel side by side."""
    image = torch.randint(256, (2, 9, 7, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    assert as_float(image).is_contiguous()
    assert torch.equal(as_float(image) * 255, image.float())
    assert as_float(image[0]).is_contiguous()
    ready = torch.rand(3, 4, 4)
    assert as_float(ready) is ready


def test_crops_move_as_one():
    given = crops(strong_jitter=jitter(2), strong_views=2)
    moved = given.to("meta")
    assert moved.strong_views == 2
    assert moved.image_jitter is None
    assert all(getattr(moved, name).is_meta for name in ("image", "label", "unlabeled", "valid", "strong_jitter"))
    assert views_of(moved).strong_2.shape == (2, 3, 16, 20)
