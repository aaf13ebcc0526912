import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from u2pl.pixels.contrast import (
    UnreliableContrast,
    anchor_mask,
    class_centres,
    gather_pixels,
    info_nce,
)
from u2pl.pixels.negative_keys import NegativeKeys, class_rank
from u2pl.pixels.prototypes import Prototypes
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


def loop_contrast(
    step: dict[str, Tensor],
    low: int,
    high: int,
    number: int = B * H * W,
    tau: float = 0.5,
    positives: dict[int, Tensor] | None = None,
) -> float:
    """L_c where every set is at most ``number`` pixels large, so that all its members are gone through in turn."""
    losses = []
    for c in range(C):
        anchors = [place for place in PLACES if is_anchor(step, c, place)]
        negatives = [place for place in PLACES if is_negative(step, c, place, low, high)]
        if not anchors or not negatives:
            continue
        teacher = {place: step["teacher_embedding"][place[0], :, place[1], place[2]] for place in PLACES}
        centre = sum(teacher[place] for place in anchors) / len(anchors)
        positive = centre if positives is None else positives[c]
        keys = [positive, *(teacher[negatives[k % len(negatives)]] for k in range(number))]
        total = 0.0
        for k in range(number):
            b, y, x = anchors[k % len(anchors)]
            z = step["embedding"][b, :, y, x].detach()
            scores = [math.exp(F.cosine_similarity(z, key, dim=0).item() / tau) for key in keys]
            total -= math.log(scores[0] / sum(scores))
        losses.append(total / number)
    return sum(losses) / max(1, len(losses))


def whole_set_contrast(low: int | None = None, high: int | None = None, **options: object) -> UnreliableContrast:
    number = B * H * W
    sizes = {"anchors": number, "negatives": number, "bank_size": number, "keys_per_step": number}
    return UnreliableContrast(C, D, negative_keys=NegativeKeys(low, high), **{**sizes, **options})


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
def test_class_centres(seed: int) -> None:
    torch.manual_seed(seed)
    embedding, members = torch.randn(B, D, H, W), torch.rand(B, C, H, W) < 0.3
    members[:, 2:4] = False
    members[1, 3, 2, 1] = True
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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("absent", [None, 1])
@pytest.mark.parametrize(("low", "high"), [(1, 5), (2, 4)])
def test_contrast_of_whole_sets(seed: int, absent: int | None, low: int, high: int) -> None:
    step = random_step(seed, absent)
    contrast = whole_set_contrast(low=low, high=high)
    loss = contrast(**step)
    held = [sum(is_negative(step, c, place, low, high) for place in PLACES) for c in range(C)]
    assert contrast.bank.fill.tolist() == held
    assert loss.item() == pytest.approx(loop_contrast(step, low, high), rel=1e-4)
    assert loss.item() > 0


def centre_of(step: dict[str, Tensor], c: int) -> Tensor | None:
    """Mean teacher embedding of the anchors of a class."""
    anchors = [step["teacher_embedding"][b, :, y, x] for b, y, x in PLACES if is_anchor(step, c, (b, y, x))]
    return sum(anchors) / len(anchors) if anchors else None


@pytest.mark.parametrize("used", [True, False])
def test_prototypes_follow_the_centres_and_are_the_positives(used: bool) -> None:
    contrast = whole_set_contrast(low=1, prototypes=Prototypes(C, D, momentum=0.6), prototype_positives=used)
    expected: dict[int, Tensor] = {}
    seen = [0] * C
    for number, absent in enumerate((2, 1, None, 3)):
        step = random_step(number, absent)
        for c in range(C):
            if (centre := centre_of(step, c)) is not None:
                seen[c] += 1
                m = min(1 - 1 / seen[c], 0.6)
                expected[c] = m * expected.get(c, torch.zeros(D)) + (1 - m) * centre
        contrast.bank.pushed.zero_()  # so that the queue holds this step alone
        loss = contrast(**step)
        assert loss.item() == pytest.approx(loop_contrast(step, 1, C, positives=expected if used else None), rel=1e-4)
        assert contrast.prototypes.updates.tolist() == seen
        for c, value in expected.items():
            torch.testing.assert_close(contrast.prototypes.value[c], value)
    assert min(seen) < max(seen) == 4
    loss.backward()
    assert step["embedding"].grad.abs().sum() > 0
    assert not contrast.prototypes.value.requires_grad
    assert "prototypes.value" in contrast.state_dict()


def test_the_first_prototypes_are_the_centres() -> None:
    step = random_step(1)
    plain, kept = whole_set_contrast(low=1), whole_set_contrast(low=1, prototypes=Prototypes(C, D))
    assert plain(**step).item() == kept(**step).item() > 0


def test_classes_without_a_prototype_are_left_out() -> None:
    step = random_step(0)
    contrast = whole_set_contrast(low=1, bank_size=100, prototypes=Prototypes(C, D))
    contrast(**step)  # fills the queues
    contrast.prototypes.updates.zero_()
    place = next(place for place in PLACES if step["target"][place] == 4 and is_anchor(step, 4, place))
    step["teacher_embedding"][place[0], :, place[1], place[2]] = torch.inf  # an overflow: this step has no centres
    step["label"], step["unreliable"] = torch.full_like(step["label"], IGNORE_INDEX), step["unreliable"] & False
    assert contrast(**step).item() == 0
    assert not contrast.prototypes.known.any()
    contrast.prototypes.updates[1] = 1
    assert contrast(**step).item() > 0  # the one class that has a prototype


def test_ranks_known_already_are_taken() -> None:
    step = random_step(0)
    plain, given, turned = (whole_set_contrast(low=1, high=3) for _ in range(3))
    rank = class_rank(step["teacher_probability"])
    assert plain(**step).item() == given(**step, rank=rank).item()
    turned(**step, rank=C - 1 - rank)
    assert turned.bank.fill.tolist() != plain.bank.fill.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_absent_classes_are_further_negatives(seed: int) -> None:
    step = random_step(seed)
    absent = torch.rand(B, C, H, W) < 0.3
    keys = NegativeKeys(1, 3)
    contrast = UnreliableContrast(C, D, bank_size=B * H * W, keys_per_step=B * H * W, negative_keys=keys)
    contrast(**step, absent=absent)
    for c in range(C):
        expected = []
        for b, y, x in PLACES:
            rank = ranks_of(step["teacher_probability"][b, :, y, x].tolist())[c]
            label = int(step["label"][b, y, x])
            hard = label not in (IGNORE_INDEX, c) and rank < 1
            if absent[b, c, y, x] or hard or (step["unreliable"][b, y, x] and 1 <= rank < 3):
                expected.append(step["teacher_embedding"][b, :, y, x])
        start, fill = int(contrast.bank.start[c]), int(contrast.bank.fill[c])
        assert fill == len(expected)
        torch.testing.assert_close(contrast.bank.keys[start : start + fill], torch.stack(expected))


def test_contrast_of_a_batch_of_one() -> None:
    step = {name: tensor[:1].detach() for name, tensor in random_step(0).items()}
    contrast = whole_set_contrast(low=2)
    padded = {name: torch.cat((tensor, torch.zeros_like(tensor))) for name, tensor in step.items()}
    padded["target"][1], padded["label"][1] = IGNORE_INDEX, IGNORE_INDEX
    assert contrast(**step).item() == pytest.approx(loop_contrast(padded, 2, C), rel=1e-4)


@pytest.mark.parametrize("absent", [0, 1, 3])
def test_anchors_positives_and_negatives_of_a_class_belong_together(absent: int) -> None:
    # Class c points along axis c. Its anchors fit its centre, and only the keys of other classes are its negatives.
    axes = torch.eye(4)
    present = [c for c in range(4) if c != absent]
    label = torch.tensor(present).view(1, 1, 3)
    embedding = axes[label].permute(0, 3, 1, 2)
    probability = F.one_hot(label, 4).permute(0, 3, 1, 2).float().clamp(min=0.1)
    probability[:, absent] = 0.01
    sizes = {"anchors": 6, "negatives": 6, "bank_size": 6, "keys_per_step": 6}
    contrast = UnreliableContrast(4, 4, negative_keys=NegativeKeys(3, 4), min_probability=0.3, **sizes)
    nothing = torch.zeros_like(label, dtype=torch.bool)
    loss = contrast(embedding, embedding, probability, target=label, label=label, unreliable=nothing)
    expected = -math.log(math.exp(2) / (math.exp(2) + 6))  # all six negatives are orthogonal to the anchor
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_queues_remember_earlier_steps() -> None:
    first, second = random_step(0), random_step(1)
    contrast = whole_set_contrast(low=1, high=5, bank_size=100)
    contrast(**first)
    contrast(**second)
    both = [sum(is_negative(step, c, p, 1, 5) for step in (first, second) for p in PLACES) for c in range(C)]
    assert contrast.bank.fill.tolist() == both


def test_at_most_keys_per_step_enter_a_queue() -> None:
    step = random_step(0)
    contrast = whole_set_contrast(low=1, high=5, keys_per_step=2)
    contrast(**step)
    counts = [sum(is_negative(step, c, place, 1, 5) for place in PLACES) for c in range(C)]
    assert max(counts) > 2
    assert contrast.bank.fill.tolist() == [min(2, count) for count in counts]


@pytest.mark.parametrize("number", [2, 50])
def test_gradient_reaches_drawn_anchors_only(number: int) -> None:
    step = random_step(2)
    step["teacher_embedding"].requires_grad_()
    step["teacher_probability"].requires_grad_()
    contrast = whole_set_contrast(low=1, high=5, anchors=number)
    contrast(**step).backward()
    assert step["teacher_embedding"].grad is None
    assert step["teacher_probability"].grad is None
    gradient = step["embedding"].grad
    assert gradient is not None
    moved = gradient.abs().sum(dim=1) > 0
    counts = []
    for c in range(C):
        anchors = [place for place in PLACES if is_anchor(step, c, place)]
        counts.append(sum(bool(moved[place]) for place in anchors))
        assert counts[-1] == min(number, len(anchors))
    assert int(moved.sum()) == sum(counts)
    assert max(counts) > 1


@pytest.mark.parametrize("without", ["anchors", "negatives", "both"])
def test_without_a_class_to_contrast_the_loss_is_zero_and_connected(without: str) -> None:
    step = random_step(0)
    if without != "negatives":
        step["target"] = torch.full_like(step["target"], IGNORE_INDEX)
    if without != "anchors":
        step["label"] = torch.full_like(step["label"], IGNORE_INDEX)
        step["unreliable"] = torch.zeros_like(step["unreliable"])
    loss = whole_set_contrast()(**step)
    loss.backward()
    assert loss.item() == 0
    gradient = step["embedding"].grad
    assert gradient is not None
    assert not gradient.any()


def test_two_classes_of_which_one_appears() -> None:
    contrast = UnreliableContrast(2, D, anchors=4, negatives=4, bank_size=12, keys_per_step=12)
    assert contrast.negative_keys.ranks(2) == (1, 2)
    zeros = torch.zeros(1, H, W, dtype=torch.long)
    unreliable = torch.zeros(1, H, W, dtype=torch.bool)
    probability = torch.tensor([0.8, 0.2]).view(1, 2, 1, 1).expand(1, 2, H, W)
    embedding = torch.randn(1, D, H, W, requires_grad=True)
    loss = contrast(embedding, embedding.detach(), probability, target=zeros, label=zeros, unreliable=unreliable)
    assert contrast.bank.fill.tolist() == [0, 0]  # nothing is mistaken: no hard negative
    assert loss.item() == 0
    ignored = torch.full_like(zeros, IGNORE_INDEX)
    contrast(embedding, embedding.detach(), probability, target=ignored, label=ignored, unreliable=~unreliable)
    assert contrast.bank.fill.tolist() == [0, 12]  # unreliable pixels are negatives of their unlikely class


def test_everything_and_nothing_unreliable() -> None:
    step = random_step(3)
    ignored, everything = torch.full_like(step["label"], IGNORE_INDEX), torch.ones_like(step["unreliable"])
    contrast = whole_set_contrast(low=2, high=4)
    contrast(**{**step, "label": ignored, "target": ignored, "unreliable": everything})
    held = [0] * C
    for b, y, x in PLACES:
        for c, rank in enumerate(ranks_of(step["teacher_probability"][b, :, y, x].tolist())):
            held[c] += 2 <= rank < 4
    assert contrast.bank.fill.tolist() == held
    contrast = whole_set_contrast(low=2, high=4)
    nothing = torch.zeros_like(step["unreliable"])
    loss = contrast(**{**step, "unreliable": nothing})
    expected = loop_contrast({**step, "unreliable": nothing}, 2, 4)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_keys_are_shared_among_processes() -> None:
    shapes = []

    def gather(keys: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        shapes.append((keys.shape, keep.shape))
        return torch.cat((keys, keys + 1), dim=1), torch.cat((keep, keep), dim=1)

    step = random_step(0)
    alone = whole_set_contrast(low=1, bank_size=100)
    together = whole_set_contrast(low=1, bank_size=100, gather=gather)
    alone(**step)
    together(**step)
    number = B * H * W
    assert shapes == [((C, number, D), (C, number))]
    assert torch.equal(together.bank.fill, 2 * alone.bank.fill)


def test_the_truth_is_shared_with_its_keys_and_changes_nothing() -> None:
    """The embedding says which pixel a key is of; another process's keys are one up, its classes two."""

    def gather(keys: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat((keys, keys + (1 if keys.is_floating_point() else 2)), dim=1), torch.cat((keep, keep), dim=1)

    step = random_step(0)
    step["teacher_embedding"] = 10.0 * torch.arange(B * H * W).view(B, 1, H, W).expand(B, D, H, W)
    truth = torch.randint(0, 200, (B, H, W))
    for shared in (None, gather):
        plain = whole_set_contrast(low=1, bank_size=100, gather=shared)
        knowing = whole_set_contrast(low=1, bank_size=100, gather=shared, keep_truth=True)
        assert torch.equal(*(contrast(**step, truth=truth) for contrast in (plain, knowing)))
        assert torch.equal(plain.bank.keys, knowing.bank.keys)
        others = 0
        for start, fill in zip(knowing.bank.start.tolist(), knowing.bank.fill.tolist(), strict=True):
            for row in range(start, start + fill):
                pixel, other = divmod(int(knowing.bank.keys[row, 0]), 10)
                assert knowing.bank.truth[row] == truth.flatten()[pixel] + 2 * other
                others += other
        assert (others > 0) == (shared is not None)


def test_bfloat16_is_contrasted_in_single_precision() -> None:
    step = random_step(0)
    half = {name: tensor.detach().bfloat16() if tensor.is_floating_point() else tensor for name, tensor in step.items()}
    back = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in half.items()}
    half["embedding"].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = whole_set_contrast(low=2)(**half)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loop_contrast(back, 2, C), rel=1e-4)
    assert half["embedding"].grad is not None
    assert half["embedding"].grad.isfinite().all()


def test_state_round_trip() -> None:
    contrast, copy = whole_set_contrast(), whole_set_contrast()
    contrast(**random_step(0))
    copy.load_state_dict(contrast.state_dict())
    losses = []
    for one in (contrast, copy):
        torch.manual_seed(4)
        losses.append(one(**random_step(1)).item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("low", "high"), [(0, 3), (3, 3), (4, 3), (1, 6)])
def test_ranks_out_of_order(low: int, high: int) -> None:
    with pytest.raises(ValueError, match="0 < low_rank < high_rank <= 5"):
        UnreliableContrast(5, 2, negative_keys=NegativeKeys(low, high))


@pytest.mark.parametrize(
    ("size", "background", "expected"), [(40, 50, [50, 40, 40]), (40, 30, [30, 40, 40]), (40, None, [40, 40, 40])]
)
def test_sizes_of_the_queues(size: int, background: int | None, expected: list[int]) -> None:
    sizes, least = {"bank_size": size, "background_bank_size": background}, min(expected)
    contrast = UnreliableContrast(3, 2, keys_per_step=least, **sizes)
    assert contrast.bank.capacity.tolist() == expected
    with pytest.raises(ValueError, match=rf"keys_per_step {least + 1} is more than a queue holds \({least}\)"):
        UnreliableContrast(3, 2, keys_per_step=least + 1, **sizes)
