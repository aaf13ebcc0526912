"""ClassMix across domains against loops over pixels."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from u2pl.pixels import ClassMix, CrossDomainClassMix, CutMix, Mix, NoMixing
from u2pl.pixels.cross_domain_mixing import in_turn
from u2pl.structures import IGNORE_INDEX, PseudoLabel

C = 5
NAMES = ("label", "entropy", "confidence", "valid", "reliable", "unreliable")


def coded_pseudo_label(batch: int = 3, height: int = 8, width: int = 6, seed: int = 0) -> PseudoLabel:
    """Entropy and confidence name the pixel they belong to; the masks are random."""
    torch.manual_seed(seed)
    size = (batch, height, width)
    valid = torch.rand(size) > 0.2
    reliable = valid & (torch.rand(size) > 0.4)
    code = torch.arange(batch * height * width, dtype=torch.float32).view(size) + 2
    return PseudoLabel(torch.randint(0, C, size), code, code + 0.5, valid, reliable, valid & ~reliable)


def random_labels(batch: int, height: int = 8, width: int = 6, seed: int = 1) -> Tensor:
    """Labels of few classes each, some pixels ignored."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.stack([torch.randperm(C, generator=generator)[:3] for _ in range(batch)])
    picked = torch.randint(0, 3, (batch, height, width), generator=generator)
    label = torch.stack([row[pixels] for row, pixels in zip(classes, picked, strict=True)])
    return label.masked_fill(torch.rand(label.shape, generator=generator) < 0.3, IGNORE_INDEX)


def taken_classes(mix: Mix, label: Tensor, image: int) -> tuple[set[int], set[int]]:
    """Classes present in the label of an image's source, and those of which all pixels are pasted."""
    source = label[image % len(label)]
    present = set(source.flatten().tolist()) - {IGNORE_INDEX}
    taken = set()
    for value in present:
        of_class = ~mix.keep[image][source == value]
        assert of_class.all() or not of_class.any()
        if of_class.all():
            taken.add(value)
    return present, taken


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("labeled", "unlabeled"), [(3, 3), (1, 4), (2, 5), (4, 2), (1, 1)])
def test_half_of_the_source_classes_are_pasted_whole(seed: int, labeled: int, unlabeled: int) -> None:
    pseudo, label = coded_pseudo_label(unlabeled, seed=seed), random_labels(labeled, seed=seed)
    mix = CrossDomainClassMix(C).draw(pseudo, label)
    assert mix.keep.shape == pseudo.label.shape
    for image in range(unlabeled):
        present, taken = taken_classes(mix, label, image)
        assert len(present) > 1
        assert len(taken) == -(-len(present) // 2)
        assert mix.keep[image][label[image % labeled] == IGNORE_INDEX].all()


@pytest.mark.parametrize(("labeled", "unlabeled"), [(3, 3), (1, 4), (2, 5), (4, 2), (1, 1)])
def test_one_mask_moves_every_tensor_alike(labeled: int, unlabeled: int) -> None:
    pseudo, label = coded_pseudo_label(unlabeled), random_labels(labeled)
    image, source_image = torch.rand(unlabeled, 3, 8, 6), 5 + torch.rand(labeled, 3, 8, 6)
    coarse, source_coarse = torch.rand(unlabeled, 7, 4, 3), 5 + torch.rand(labeled, 7, 4, 3)
    mix = CrossDomainClassMix(C).draw(pseudo, label)
    mixed_image, mixed_coarse = mix.apply(image, source_image), mix.apply(coarse, source_coarse)
    mixed, known = mix.pseudo_label(pseudo), mix.true_label()
    assert not mix.keep.all()
    for b, y, x in product(range(unlabeled), range(8), range(6)):
        pasted, source = not mix.keep[b, y, x], b % labeled
        expected = source_image[source, :, y, x] if pasted else image[b, :, y, x]
        assert torch.equal(mixed_image[b, :, y, x], expected)
        found = [getattr(mixed, name)[b, y, x].item() for name in NAMES]
        own = [getattr(pseudo, name)[b, y, x].item() for name in NAMES]
        assert found == ([label[source, y, x].item(), 0.0, 1.0, True, True, False] if pasted else own)
        assert known[b, y, x] == (label[source, y, x] if pasted else IGNORE_INDEX)
        if y % 2 == 0 and x % 2 == 0:  # the nearest pixel of the lower resolution
            expected = source_coarse[source, :, y // 2, x // 2] if pasted else coarse[b, :, y // 2, x // 2]
            assert torch.equal(mixed_coarse[b, :, y // 2, x // 2], expected)
    for name in NAMES:
        assert getattr(mixed, name).dtype == getattr(pseudo, name).dtype
    assert not (mixed.target()[~mix.keep] == IGNORE_INDEX).any()


def test_a_source_of_one_class_is_pasted_and_an_ignored_one_is_not() -> None:
    pseudo, label = coded_pseudo_label(), random_labels(3)
    label[0], label[1] = 2, IGNORE_INDEX
    label[2] = IGNORE_INDEX
    label[2, 3, 4] = C - 1
    keep = CrossDomainClassMix(C).draw(pseudo, label).keep
    assert not keep[0].any()
    assert keep[1].all()
    assert (~keep[2]).nonzero().tolist() == [[3, 4]]


def test_where_nothing_is_valid_pasted_pixels_alone_become_so() -> None:
    pseudo, label = coded_pseudo_label(), random_labels(3)
    nothing = torch.zeros_like(pseudo.valid)
    pseudo = replace(pseudo, valid=nothing, reliable=nothing, unreliable=nothing)
    mix = CrossDomainClassMix(C).draw(pseudo, label)
    mixed = mix.pseudo_label(pseudo)
    assert torch.equal(mixed.valid, ~mix.keep)
    assert torch.equal(mixed.reliable, ~mix.keep)
    assert not mixed.unreliable.any()


def test_every_class_is_drawn_as_often_and_draws_repeat_under_a_seed() -> None:
    torch.manual_seed(0)
    label = torch.tensor([0, 1, 3, C - 1]).view(1, 2, 2).repeat(2000, 1, 1)
    pseudo = coded_pseudo_label(2000, 2, 2)
    torch.manual_seed(7)
    first, second = (CrossDomainClassMix(C).draw(pseudo, label).keep for _ in range(2))
    assert first.float().mean(dim=0).flatten().tolist() == pytest.approx([0.5] * 4, abs=0.05)
    assert not torch.equal(first, second)
    torch.manual_seed(7)
    assert torch.equal(CrossDomainClassMix(C).draw(pseudo, label).keep, first)


def test_the_source_is_needed() -> None:
    pseudo = coded_pseudo_label()
    with pytest.raises(TypeError, match="give their labels"):
        CrossDomainClassMix(C).draw(pseudo)
    with pytest.raises(TypeError, match="give the same of those"):
        CrossDomainClassMix(C).draw(pseudo, random_labels(3)).apply(pseudo.entropy)


@pytest.mark.parametrize("mixing", [CutMix(), ClassMix(C), NoMixing()])
def test_other_mixings_have_no_use_for_labeled_images(mixing: CutMix | ClassMix | NoMixing) -> None:
    pseudo, image = coded_pseudo_label(), torch.rand(3, 3, 8, 6)
    torch.manual_seed(3)
    alone = mixing.draw(pseudo)
    torch.manual_seed(3)
    beside = mixing.draw(pseudo, random_labels(2))
    assert torch.equal(alone.keep, beside.keep)
    assert torch.equal(alone.apply(image), beside.apply(image, torch.rand(2, 3, 8, 6)))
    assert torch.equal(alone.true_label(), torch.full((3, 8, 6), IGNORE_INDEX))


def test_rows_in_turn() -> None:
    rows = torch.arange(3)
    assert [in_turn(rows, number).tolist() for number in (1, 3, 4, 7)] == [
        [0],
        [0, 1, 2],
        [0, 1, 2, 0],
        [0, 1, 2, 0, 1, 2, 0],
    ]


def test_no_step_waits_for_the_device() -> None:
    """Tensors of the meta device have no values: whatever would read one back fails."""
    pseudo = PseudoLabel.from_logits(torch.empty(3, C, 8, 6, device="meta"))
    mix = CrossDomainClassMix(C).draw(pseudo, torch.empty(2, 8, 6, dtype=torch.long, device="meta"))
    image = mix.apply(torch.empty(3, 3, 8, 6, device="meta"), torch.empty(2, 3, 8, 6, device="meta"))
    assert image.shape == (3, 3, 8, 6)
    assert mix.pseudo_label(pseudo).target().device.type == mix.true_label().device.type == "meta"
