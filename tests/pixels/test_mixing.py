from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from u2pl.pixels.mixing import ClassMix, CutMix, CutOut, Mix, Mixing, NoMixing, random_boxes
from u2pl.structures import IGNORE_INDEX, PseudoLabel

NAMES = ("label", "entropy", "confidence", "valid", "reliable", "unreliable")
MIXINGS = [CutMix(), CutMix(area=0.2), CutOut(), ClassMix(6)]


def coded_pseudo_label(batch: int = 3, height: int = 8, width: int = 9, seed: int = 0) -> PseudoLabel:
    """Entropy and confidence name the pixel they belong to; the masks are random."""
    torch.manual_seed(seed)
    size = (batch, height, width)
    valid = torch.rand(size) > 0.2
    reliable = valid & (torch.rand(size) > 0.4)
    code = torch.arange(batch * height * width, dtype=torch.float32).view(size)
    return PseudoLabel(torch.randint(0, 5, size), code, code + 0.5, valid, reliable, valid & ~reliable)


def bounds(mask: Tensor) -> tuple[int, int, int, int]:
    rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    return int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1


@pytest.mark.parametrize("area", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("size", [(24, 24), (17, 31)])
def test_boxes_are_rectangles_of_the_asked_area(area: float, size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    boxes = random_boxes(200, *size, area=area, device=torch.device("cpu"))
    assert boxes.shape == (200, *size)
    widths = []
    for box in boxes:
        top, bottom, left, right = bounds(box)
        assert box[top:bottom, left:right].all()
        assert int(box.sum()) == (bottom - top) * (right - left)
        # each side is rounded by less than one pixel
        assert abs(int(box.sum()) - area * size[0] * size[1]) <= (bottom - top) + (right - left) + 1
        widths.append((right - left) / size[1])
    assert min(widths) >= area - 1 / size[1]
    if area < 0.9:
        assert max(widths) - min(widths) > 0.2  # the shape varies
    covered = boxes.any(dim=0)
    assert covered[0].any()
    assert covered[-1].any()
    assert covered[:, 0].any()
    assert covered[:, -1].any()


def test_a_box_of_all_the_area_is_the_image() -> None:
    assert random_boxes(4, 5, 7, area=1.0, device=torch.device("cpu")).all()


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_one_mask_moves_every_tensor_alike(mixing: Mixing, batch: int) -> None:
    pseudo = coded_pseudo_label(batch)
    image = torch.stack([pseudo.entropy + 1000 * k for k in range(1, 4)], dim=1)
    mix = mixing.draw(pseudo)
    mixed_image, mixed = mix.apply(image), mix.pseudo_label(pseudo)
    _, height, width = pseudo.label.shape
    for b, y, x in product(range(batch), range(height), range(width)):
        if mix.keep[b, y, x] or not mix.erase:
            source = b if mix.keep[b, y, x] else (b + 1) % batch
            assert torch.equal(mixed_image[b, :, y, x], image[source, :, y, x])
            for name in NAMES:
                assert getattr(mixed, name)[b, y, x] == getattr(pseudo, name)[source, y, x], name
        else:
            assert not mixed_image[b, :, y, x].any()
            assert not mixed.valid[b, y, x]
            assert not mixed.reliable[b, y, x]
            assert not mixed.unreliable[b, y, x]
    for name in NAMES:
        assert getattr(mixed, name).dtype == getattr(pseudo, name).dtype


def test_cutmix_takes_a_box_from_the_partner_and_cutout_erases_one() -> None:
    pseudo = coded_pseudo_label(2, 20, 20)
    for mixing in (CutMix(area=0.3), CutOut(area=0.3)):
        mix = mixing.draw(pseudo)
        assert mix.erase == isinstance(mixing, CutOut)
        for keep in mix.keep:
            top, bottom, left, right = bounds(~keep)
            assert not keep[top:bottom, left:right].any()
            assert abs(int((~keep).sum()) - 120) < 40


@pytest.mark.parametrize("mixing", MIXINGS)
def test_lower_resolution_follows_by_nearest_neighbour(mixing: Mixing) -> None:
    pseudo = coded_pseudo_label(3, 17, 17)
    mix = mixing.draw(pseudo)
    features = torch.randn(3, 4, 5, 5)
    small = F.interpolate(mix.keep.unsqueeze(1).float(), size=(5, 5), mode="nearest").squeeze(1)
    mixed = mix.apply(features)
    for b, y, x in product(range(3), range(5), range(5)):
        other = torch.zeros(4) if mix.erase else features[(b + 1) % 3, :, y, x]
        assert torch.equal(mixed[b, :, y, x], features[b, :, y, x] if small[b, y, x] else other)
    full = torch.stack((pseudo.entropy, pseudo.confidence), dim=1)
    before = mix.apply(F.interpolate(full, size=(5, 5)))
    after = F.interpolate(mix.apply(full), size=(5, 5))
    assert torch.equal(before, after)


@pytest.mark.parametrize("seed", range(5))
def test_classmix_keeps_half_of_the_present_classes_whole(seed: int) -> None:
    pseudo = coded_pseudo_label(4, 6, 6, seed)
    pseudo.label[0] = 3  # one class only
    pseudo.label[1] = pseudo.label[1] % 2  # two classes
    keep = ClassMix(6).draw(pseudo).keep
    for b in range(4):
        present, kept = set(pseudo.label[b].flatten().tolist()), set()
        for value in present:
            of_class = keep[b][pseudo.label[b] == value]
            assert of_class.all() or not of_class.any()
            if of_class.all():
                kept.add(value)
        assert len(kept) == -(-len(present) // 2)
    assert keep[0].all()


def test_classmix_chooses_every_class_as_often() -> None:
    torch.manual_seed(0)
    label = torch.arange(4).view(1, 2, 2).repeat(2000, 1, 1)
    flag = torch.ones_like(label, dtype=torch.bool)
    pseudo = PseudoLabel(label, label.float(), label.float(), flag, flag, ~flag)
    share = ClassMix(9).draw(pseudo).keep.float().mean(dim=0).flatten()
    assert share.tolist() == pytest.approx([0.5] * 4, abs=0.05)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_draws_differ_and_repeat_under_a_seed(mixing: Mixing) -> None:
    pseudo = coded_pseudo_label(6, 12, 12)
    pseudo.label[:] = pseudo.label[:1]  # so that ClassMix differs by its draw alone
    torch.manual_seed(5)
    first, second = mixing.draw(pseudo).keep, mixing.draw(pseudo).keep
    assert not torch.equal(first, second)
    assert any(not torch.equal(first[0], first[b]) for b in range(1, 6))
    torch.manual_seed(5)
    assert torch.equal(mixing.draw(pseudo).keep, first)


def test_a_batch_of_one_is_its_own_partner() -> None:
    pseudo = coded_pseudo_label(1)
    for mixing in (CutMix(), ClassMix(6)):
        mixed = mixing.draw(pseudo).pseudo_label(pseudo)
        assert all(torch.equal(getattr(mixed, name), getattr(pseudo, name)) for name in NAMES)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_where_nothing_is_valid_nothing_becomes_so(mixing: Mixing) -> None:
    pseudo = coded_pseudo_label(3)
    nothing = torch.zeros_like(pseudo.valid)
    pseudo = replace(pseudo, valid=nothing, reliable=nothing, unreliable=nothing)
    mixed = mixing.draw(pseudo).pseudo_label(pseudo)
    assert not (mixed.valid | mixed.reliable | mixed.unreliable).any()
    assert (mixed.target() == IGNORE_INDEX).all()


def test_classmix_of_a_single_class_keeps_the_image() -> None:
    pseudo = coded_pseudo_label(3)
    pseudo.label[:] = 0
    assert ClassMix(1).draw(pseudo).keep.all()


def test_the_last_class_takes_part_in_classmix() -> None:
    torch.manual_seed(0)
    label = torch.tensor([[[0, 5]]]).repeat(200, 1, 1)
    flag = torch.ones_like(label, dtype=torch.bool)
    keep = ClassMix(6).draw(PseudoLabel(label, label.float(), label.float(), flag, flag, ~flag)).keep
    assert (keep.sum(dim=2) == 1).all()
    assert 60 < int(keep[..., 1].sum()) < 140


@pytest.mark.parametrize("mixing", [CutMix(), CutOut(), ClassMix(6)])
def test_a_mask_of_lower_resolution_fits_maps_without_channels(mixing: Mixing) -> None:
    pseudo = coded_pseudo_label(3, 16, 16)
    mix = mixing.draw(pseudo)
    small = torch.rand(3, 4, 4)
    mixed = mix.apply(small)
    assert mixed.shape == small.shape
    for b, y, x in product(range(3), range(4), range(4)):
        other = 0.0 if mix.erase else small[(b + 1) % 3, y, x]
        assert mixed[b, y, x] == (small[b, y, x] if mix.keep[b, 4 * y, 4 * x] else other)


def test_no_mixing_keeps_everything() -> None:
    pseudo = coded_pseudo_label(2)
    mixed = NoMixing().draw(pseudo).pseudo_label(pseudo)
    assert all(torch.equal(getattr(mixed, name), getattr(pseudo, name)) for name in NAMES)


def test_gradients_pass_through_a_mix() -> None:
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    keep = torch.rand(2, 4, 4) > 0.5
    Mix(keep).apply(features).sum().backward()
    taken = keep.int() + (~keep).roll(1, dims=0).int()
    assert features.grad is not None
    assert torch.equal(features.grad[:, 0], taken.float())
