import math
from dataclasses import replace
from itertools import permutations, product

import pytest
import torch
from torch import Tensor

from u2pl.pixels.adaptive_mixing import AdaptiveCopyPaste, AdaptiveCutMix, ClassConfidence, Paste, draw_classes
from u2pl.structures import IGNORE_INDEX, PseudoLabel

NAMES = ("label", "entropy", "confidence", "valid", "reliable", "unreliable")


def bank(values: list[float]) -> ClassConfidence:
    confidence = ClassConfidence(len(values))
    confidence.value.copy_(torch.tensor(values))
    return confidence


def certain(label: Tensor, valid: Tensor | None = None) -> PseudoLabel:
    """Entropy and confidence name the pixel they belong to."""
    valid = torch.ones_like(label, dtype=torch.bool) if valid is None else valid
    code = torch.arange(label.numel(), dtype=torch.float32).view(label.shape)
    return PseudoLabel(label, code, code + 0.5, valid, valid, torch.zeros_like(valid))


def bounds(mask: Tensor) -> tuple[int, int, int, int]:
    rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    return int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1


def inclusion(probability: list[float], number: int) -> list[float]:
    """How likely each class is among the first ``number`` of draws without replacement."""
    share = [0.0] * len(probability)
    for order in permutations(range(len(probability)), number):
        chance, left = 1.0, 1.0
        for c in order:
            chance, left = chance * probability[c] / left, left - probability[c]
        for c in order:
            share[c] += chance
    return share


def softmax_of(values: list[float], smoothing: float, candidates: list[bool]) -> list[float]:
    weights = [math.exp((1 - v) ** smoothing) if use else 0.0 for v, use in zip(values, candidates, strict=True)]
    return [weight / sum(weights) for weight in weights]


# -- the confidence bank --


def test_the_bank_is_a_running_mean_of_the_probability_of_the_true_class() -> None:
    torch.manual_seed(0)
    confidence, expected = ClassConfidence(6, decay=0.9), [0.0] * 6
    seen: set[int] = set()
    for step in range(6):
        logits = torch.randn(2, 6, 4, 5) * 2
        label = torch.randint(0, 4 if step < 3 else 5, (2, 4, 5))  # class 4 comes late, class 5 never
        label[label == step % 3] = (step + 1) % 3  # and one is absent from each step
        label[torch.rand(2, 4, 5) < 0.3] = IGNORE_INDEX
        confidence.update(logits, label)
        observed: dict[int, list[float]] = {}
        for b, y, x in product(range(2), range(4), range(5)):
            if (c := int(label[b, y, x])) != IGNORE_INDEX:
                weights = [math.exp(value) for value in logits[b, :, y, x].tolist()]
                observed.setdefault(c, []).append(weights[c] / sum(weights))
        for c, values in observed.items():
            mean = sum(values) / len(values)
            expected[c] = 0.9 * expected[c] + 0.1 * mean if c in seen else mean
        seen |= observed.keys()
        assert confidence.value.tolist() == pytest.approx(expected, rel=1e-5)
        assert set(confidence.seen.nonzero().flatten().tolist()) == seen
    assert expected[5] == 0


@pytest.mark.parametrize("fill", [IGNORE_INDEX, 0])
def test_a_step_that_says_nothing_leaves_the_bank_alone(fill: int) -> None:
    confidence = bank([0.2, 0.4])
    logits = torch.full((1, 2, 3, 3), torch.nan if fill == 0 else 1.0)
    confidence.update(logits, torch.full((1, 3, 3), fill))
    assert confidence.value.tolist() == pytest.approx([0.2, 0.4])
    assert not confidence.seen.any()


def test_the_bank_keeps_no_graph_and_is_saved() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, requires_grad=True, dtype=torch.float32)
    label = torch.randint(0, 3, (2, 4, 4))
    confidence, restored = ClassConfidence(3), ClassConfidence(3)
    confidence.update(logits, label)
    assert not confidence.value.requires_grad
    restored.load_state_dict(confidence.state_dict())
    for each in (confidence, restored):
        each.update(logits.bfloat16() * 3, label)
    assert confidence.value.dtype == torch.float32
    assert torch.equal(confidence.value, restored.value)


def test_processes_hold_the_bank_of_all_their_pixels() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(4, 3, 5, 5), torch.randint(0, 3, (4, 5, 5))
    label[:1] = 2  # so that a mean of means would differ
    totals: list[Tensor] = []
    for rank in (0, 1):  # what each process would hand over
        ClassConfidence(3, reduce=lambda total: (totals.append(total), total)[1]).update(
            logits[rank::2], label[rank::2]
        )
    shared = ClassConfidence(3, reduce=lambda _: totals[0] + totals[1])
    whole = ClassConfidence(3)
    shared.update(logits[::2], label[::2])
    whole.update(logits, label)
    assert torch.allclose(shared.value, whole.value, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 1 / 3, 1.0])
def test_sampling_probability(smoothing: float) -> None:
    values = [0.0, 0.3, 1.0, 0.9, 0.5]
    candidates = torch.tensor([[True] * 5, [True, False, True, False, True], [False, False, False, True, False]])
    confidence = bank(values)
    probability = confidence.sampling_probability(candidates, smoothing=smoothing)
    for row, mask in zip(probability.tolist(), candidates.tolist(), strict=True):
        assert row == pytest.approx(softmax_of(values, smoothing, mask), rel=1e-5)
    assert torch.equal(confidence.sampling_probability(smoothing=smoothing), probability[0])
    assert not confidence.sampling_probability(torch.zeros(2, 5, dtype=torch.bool)).any()


def test_the_less_confident_class_is_drawn_more_often() -> None:
    probability = bank([0.9, 0.1, 0.5]).sampling_probability().tolist()
    assert probability[1] > probability[2] > probability[0]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_classes_are_drawn_without_replacement_in_proportion(number: int) -> None:
    torch.manual_seed(0)
    probability, rounds = [0.5, 0.0, 0.3, 0.05, 0.15], 20_000
    chosen = draw_classes(torch.tensor(probability).expand(rounds, -1), number)
    assert (chosen.sum(dim=1) == number).all()
    possible = [0, 2, 3, 4]
    expected = inclusion([probability[c] for c in possible], number)
    share = chosen.double().mean(dim=0)
    assert share[1] == 0
    assert share[possible].tolist() == pytest.approx(expected, abs=0.02)


def test_no_more_classes_are_drawn_than_there_are() -> None:
    chosen = draw_classes(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.2, 0.3, 0.5]]), 7)
    assert chosen.tolist() == [[False, True, False], [False] * 3, [True] * 3]


# -- adaptive CutMix --


@pytest.mark.parametrize("area", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("size", [(24, 24), (17, 31)])
def test_a_box_contains_the_class_or_lies_within_it(area: float, size: tuple[int, int]) -> None:
    torch.manual_seed(2)
    batch, (height, width) = 80, size
    label, valid = torch.zeros(batch, *size, dtype=torch.long), torch.zeros(batch, *size, dtype=torch.bool)
    for b in range(batch):  # the class, on two pixels at least; all else is padding
        corners = torch.stack((torch.randint(height, (2,)), torch.randint(width, (2,)))).tolist()
        for y, x in zip(*corners, strict=True):
            label[b, y, x], valid[b, y, x] = 1, True
    keep = AdaptiveCutMix(bank([0.5, 0.5]), area=area).draw(certain(label, valid)).keep
    starts = []
    for b in range(batch):
        box, partner = ~keep[b], valid[(b + 1) % batch]
        top, bottom, left, right = bounds(box)
        assert box[top:bottom, left:right].all()
        assert abs(int(box.sum()) - area * height * width) <= (bottom - top) + (right - left) + 1
        inner = bounds(partner)
        for (start, end), (first, last) in zip(((top, bottom), (left, right)), (inner[:2], inner[2:]), strict=True):
            assert (start <= first and end >= last) or (start >= first and end <= last)
        starts.append((top, left))
    assert len(set(starts)) > (20 if area < 0.9 else 4)  # the place varies


def test_every_possible_place_of_a_box_is_drawn() -> None:
    torch.manual_seed(0)
    label = torch.zeros(3000, 8, 8, dtype=torch.long)
    valid = torch.zeros_like(label, dtype=torch.bool)
    valid[:, 3, 4] = True
    box = ~AdaptiveCutMix(bank([0.5]), area=0.25).draw(certain(label, valid)).keep
    assert box[:, 3, 4].all()
    reached = box.any(dim=0)
    assert reached[0].any()
    assert reached[-1].any()
    assert reached[:, 0].any()
    assert reached[:, -1].any()


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_the_class_of_a_box_follows_the_sampling_probability(smoothing: float) -> None:
    torch.manual_seed(0)
    rounds, values = 8000, [0.95, 0.0, 0.6, 0.3, 0.1]
    label = torch.zeros(2 * rounds, 6, 6, dtype=torch.long)  # class 0 surrounds, class 4 is nowhere
    label[::2, 1, 1:3] = 1
    label[::2, 3:5, 2] = 2
    label[::2, 4, 4] = 3  # below the smallest area
    label[1::2] = 3
    box = ~AdaptiveCutMix(bank(values), min_area=0.04, resize=False, smoothing=smoothing).draw(certain(label)).keep
    assert box[::2].all()  # the partner of an even image holds one class, whose extent is the image
    boxes = torch.zeros(3, 6, 6, dtype=torch.bool)  # the extents of classes 0 to 2
    boxes[0], boxes[1, 1, 1:3], boxes[2, 3:5, 2] = True, True, True
    is_class = (box[1::2].unsqueeze(1) == boxes).flatten(2).all(dim=2)
    assert (is_class.sum(dim=1) == 1).all()
    expected = softmax_of(values, smoothing, [True, True, True, False, False])
    assert is_class.double().mean(dim=0).tolist() == pytest.approx(expected[:3], abs=0.025)


@pytest.mark.parametrize("resize", [True, False])
@pytest.mark.parametrize("case", ["padding", "too small"])
def test_without_a_class_the_box_is_random(resize: bool, case: str) -> None:
    torch.manual_seed(0)
    label = torch.zeros(400, 16, 16, dtype=torch.long)
    valid = torch.zeros_like(label, dtype=torch.bool)
    valid[:, 2, 3] = case == "too small"
    mixing = AdaptiveCutMix(bank([0.1, 0.2]), area=0.25, min_area=1 / 256, resize=resize)
    box = ~mixing.draw(certain(label, valid)).keep
    assert box.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert (~box[:, 2, 3]).any()
    for corner in (box[:, 0, 0], box[:, 0, -1], box[:, -1, 0], box[:, -1, -1]):
        assert corner.any()
    for mask in box[:50]:
        top, bottom, left, right = bounds(mask)
        assert mask[top:bottom, left:right].all()


def test_a_class_counts_from_above_the_smallest_area() -> None:
    label = torch.zeros(1, 10, 10, dtype=torch.long)
    label[0, 2:4, 3] = 1
    valid = label == 1
    exact = AdaptiveCutMix(bank([0.5, 0.5]), min_area=0.0199, resize=False)
    for _ in range(5):
        assert bounds(~exact.draw(certain(label, valid)).keep[0]) == (2, 4, 3, 4)
    none = AdaptiveCutMix(bank([0.5, 0.5]), min_area=0.0201, resize=False)
    assert int((~none.draw(certain(label, valid)).keep).sum()) > 10


def test_padding_adds_nothing_to_a_class() -> None:
    label = torch.ones(2, 12, 12, dtype=torch.long)  # padding carries the same label
    valid = torch.zeros_like(label, dtype=torch.bool)
    valid[:, 5:7, 2:9] = True
    keep = AdaptiveCutMix(bank([0.5, 0.5]), resize=False).draw(certain(label, valid)).keep
    assert [bounds(~mask) for mask in keep] == [(5, 7, 2, 9)] * 2


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_cutmix_moves_every_tensor_alike(batch: int) -> None:
    torch.manual_seed(batch)
    size = (batch, 8, 9)
    pseudo = certain(torch.randint(0, 5, size), torch.rand(size) > 0.2)
    image = torch.stack([pseudo.entropy + 1000 * k for k in range(3)], dim=1)
    mix = AdaptiveCutMix(bank([0.1, 0.9, 0.5, 0.2, 0.7])).draw(pseudo)
    mixed_image, mixed = mix.apply(image), mix.pseudo_label(pseudo)
    for b, y, x in product(*map(range, size)):
        source = b if mix.keep[b, y, x] else (b + 1) % batch
        assert torch.equal(mixed_image[b, :, y, x], image[source, :, y, x])
        for name in NAMES:
            assert getattr(mixed, name)[b, y, x] == getattr(pseudo, name)[source, y, x], name


# -- adaptive copy-paste --


def labels(batch: int, seed: int, classes: int = 5) -> Tensor:
    torch.manual_seed(seed)
    label = torch.randint(0, classes, (batch, 6, 7))
    label[torch.rand(label.shape) < 0.2] = IGNORE_INDEX
    return label


@pytest.mark.parametrize("number", [1, 2, 9])
@pytest.mark.parametrize("seed", range(4))
def test_whole_classes_are_drawn(number: int, seed: int) -> None:
    label = labels(40, seed)
    label[0], label[1] = 2, IGNORE_INDEX
    copy_paste = AdaptiveCopyPaste(bank([0.1, 0.2, 0.3, 0.9, 0.5]), number=number, probability=0.6, excluded=(1,))
    take = copy_paste.draw(label).take
    untouched = 0
    for b in range(40):
        taken = set()
        for c in range(5):
            of_class = take[b][label[b] == c]
            assert of_class.all() or not of_class.any()
            taken |= {c} if len(of_class) and of_class.all() else set()
        assert not take[b][label[b] == IGNORE_INDEX].any()
        assert 1 not in taken
        assert len(taken) <= number
        untouched += not taken
    assert 5 <= untouched <= 30  # those that the probability spares, and some whose classes are absent
    assert not take[1].any()


@pytest.mark.parametrize(("number", "smoothing"), [(1, 1.0), (2, 0.5), (3, 0.5)])
def test_classes_are_pasted_as_often_as_their_confidence_says(number: int, smoothing: float) -> None:
    torch.manual_seed(0)
    values = [0.0, 0.9, 0.99, 0.4, 0.7, 0.2]
    label = torch.tensor([[0, 1, 2], [3, 4, IGNORE_INDEX]]).expand(12_000, -1, -1)  # class 5 is excluded, 4 too
    copy_paste = AdaptiveCopyPaste(bank(values), number=number, probability=0.7, excluded=(5, 4), smoothing=smoothing)
    take = copy_paste.draw(label).take
    share = take.double().mean(dim=0).flatten().tolist()
    expected = inclusion(softmax_of(values, smoothing, [True] * 4 + [False] * 2)[:4], number)
    assert share[:4] == pytest.approx([0.7 * each for each in expected], abs=0.02)
    assert share[4:] == [0, 0]
    assert take.flatten(1).any(dim=1).double().mean().item() == pytest.approx(0.7, abs=0.02)


def test_absent_classes_can_be_drawn_so_that_others_are_not_pasted_for_want_of_them() -> None:
    torch.manual_seed(0)
    label = torch.zeros(4000, 2, 2, dtype=torch.long)
    take = AdaptiveCopyPaste(bank([0.5] * 8), number=2, probability=1.0).draw(label).take
    assert take[:, 0, 0].double().mean().item() == pytest.approx(2 / 8, abs=0.03)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_image_and_label_receive_the_same_pixels(batch: int, seed: int) -> None:
    label = labels(batch, seed)
    image = torch.arange(label.numel() * 3, dtype=torch.float32).view(batch, 3, 6, 7)
    copy_paste = AdaptiveCopyPaste(bank([0.1, 0.2, 0.3, 0.9, 0.5]), number=2, probability=0.8)
    torch.manual_seed(seed)
    new_image, new_label = copy_paste.apply(image, label)
    torch.manual_seed(seed)
    take = copy_paste.draw(torch.cat((label[1:], label[:1]))).take
    for b, y, x in product(range(batch), range(6), range(7)):
        source = (b + 1) % batch if take[b, y, x] else b
        assert torch.equal(new_image[b, :, y, x], image[source, :, y, x])
        assert new_label[b, y, x] == label[source, y, x]
    assert (new_image.dtype, new_label.dtype) == (torch.float32, torch.int64)
    if batch == 1:
        assert torch.equal(new_image, image)
        assert torch.equal(new_label, label)


@pytest.mark.parametrize(("labeled", "unlabeled"), [(1, 1), (3, 3), (2, 4), (3, 2)])
def test_unlabeled_images_receive_true_labels(labeled: int, unlabeled: int) -> None:
    source_label = labels(labeled, seed=1)
    source = torch.arange(source_label.numel() * 3, dtype=torch.float32).view(labeled, 3, 6, 7) + 10_000
    size = (unlabeled, 6, 7)
    valid = torch.rand(size) > 0.3
    reliable = valid & (torch.rand(size) > 0.5)
    pseudo = replace(certain(torch.randint(0, 5, size), valid), reliable=reliable, unreliable=valid & ~reliable)
    image = torch.rand(unlabeled, 3, 6, 7)
    copy_paste = AdaptiveCopyPaste(bank([0.1, 0.2, 0.3, 0.9, 0.5]), number=3, probability=1.0)
    torch.manual_seed(3)
    new_image, new = copy_paste.paste(image, pseudo, source, source_label)
    torch.manual_seed(3)
    take = copy_paste.draw(torch.stack([source_label[b % labeled] for b in range(unlabeled)])).take
    assert take.any()
    for b, y, x in product(*map(range, size)):
        got = tuple(getattr(new, name)[b, y, x].item() for name in NAMES)
        if take[b, y, x]:
            assert torch.equal(new_image[b, :, y, x], source[b % labeled, :, y, x])
            assert got == (source_label[b % labeled, y, x].item(), 0.0, 1.0, True, True, False)
        else:
            assert torch.equal(new_image[b, :, y, x], image[b, :, y, x])
            assert got == tuple(getattr(pseudo, name)[b, y, x].item() for name in NAMES)
    for name in NAMES:
        assert getattr(new, name).dtype == getattr(pseudo, name).dtype


def test_features_of_lower_resolution_follow_by_nearest_neighbour() -> None:
    torch.manual_seed(0)
    take = torch.rand(2, 12, 12) > 0.5
    features, source = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    pasted = Paste(take).apply(features, source)
    flat = Paste(take).apply(features[:, 0], source[:, 0])
    for b, y, x in product(range(2), range(4), range(4)):
        expected = (source if take[b, 3 * y, 3 * x] else features)[b, :, y, x]
        assert torch.equal(pasted[b, :, y, x], expected)
        assert flat[b, y, x] == expected[0]


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_nothing_is_pasted_where_all_is_ignored_excluded_or_spared(probability: float) -> None:
    label = torch.full((3, 4, 4), IGNORE_INDEX) if probability else labels(3, 0)
    confidence = bank([0.5] * 5)
    assert not AdaptiveCopyPaste(confidence, probability=probability).draw(label).take.any()
    assert not AdaptiveCopyPaste(confidence, probability=1.0, excluded=tuple(range(5))).draw(labels(3, 0)).take.any()


def test_one_class_alone() -> None:
    label = torch.zeros(2, 4, 4, dtype=torch.long)
    confidence = ClassConfidence(1)
    confidence.update(torch.randn(2, 1, 4, 4), label)
    assert confidence.value.tolist() == [1.0]
    assert AdaptiveCopyPaste(confidence, probability=1.0).draw(label).take.all()
    keep = AdaptiveCutMix(confidence).draw(certain(label)).keep
    assert 0.25 < (~keep).float().mean().item() < 0.75


# -- both --


def test_draws_differ_and_repeat_under_a_seed() -> None:
    label = labels(1, 0).expand(8, -1, -1).clone()
    confidence = bank([0.1, 0.2, 0.3, 0.9, 0.5])
    pseudo = certain(label.clamp(max=4), label != IGNORE_INDEX)

    def draw() -> tuple[Tensor, Tensor]:
        return AdaptiveCutMix(confidence).draw(pseudo).keep, AdaptiveCopyPaste(confidence).draw(label).take

    torch.manual_seed(5)
    first, second = draw(), draw()
    torch.manual_seed(5)
    again = draw()
    for a, b, c in zip(first, second, again, strict=True):
        assert not torch.equal(a, b)
        assert torch.equal(a, c)
        assert any(not torch.equal(a[0], each) for each in a[1:])


def test_the_host_never_waits_for_the_device() -> None:
    """Tensors of the meta device have no values: whatever would read one back fails."""
    confidence = ClassConfidence(5).to("meta")
    label = torch.zeros(4, 8, 8, dtype=torch.long, device="meta")
    image = torch.zeros(4, 3, 8, 8, device="meta")
    pseudo = PseudoLabel.from_logits(torch.zeros(4, 5, 8, 8, device="meta"))
    confidence.update(torch.zeros(4, 5, 8, 8, device="meta"), label)
    for resize in (True, False):
        assert AdaptiveCutMix(confidence, resize=resize).draw(pseudo).apply(image).shape == image.shape
    copy_paste = AdaptiveCopyPaste(confidence, excluded=(0,))
    assert copy_paste.apply(image, label)[0].shape == image.shape
    assert copy_paste.paste(image, pseudo, image, label)[1].label.shape == label.shape
