"""Each number of a diagnosis against a loop over pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from assemble import look, mean_teacher, u2pl, with_teacher
from torch import Tensor, nn

from u2pl.methods import U2PL, FixMatch, Schedule, Supervised, UniMatch
from u2pl.methods.diagnosis import (
    agreement_counts,
    anchor_counts,
    class_counts,
    pseudo_label_counts,
    queue_counts,
    threshold_counts,
)
from u2pl.pixels import CutMix, CutOut, MemoryBank, NoMixing, Reliability, UnreliableContrast
from u2pl.pixels.negative_keys import NegativeKeys
from u2pl.pixels.reliability import ConfidenceThreshold
from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel

Network = Callable[..., nn.Module]
C, SIZE = 4, 8


def random_truth(*shape: int, unknown: float = 0.2) -> Tensor:
    return torch.randint(0, C, shape).masked_fill(torch.rand(shape) < unknown, IGNORE_INDEX)


def random_pseudo(size: int, *, valid: float = 0.9, reliable: float = 0.6, classes: int = C) -> PseudoLabel:
    shape = (size, SIZE, SIZE)
    inside = torch.rand(shape) < valid
    believed = inside & (torch.rand(shape) < reliable)
    label, nothing = torch.randint(0, classes, shape), torch.zeros(shape)
    return PseudoLabel(label, nothing, nothing, inside, believed, inside & ~believed)


def random_batch(seed: int = 0, size: int = 2) -> Batch:
    torch.manual_seed(seed)
    weak = 2 * torch.randn(size, 3, SIZE, SIZE)
    valid = torch.ones(size, SIZE, SIZE, dtype=torch.bool)
    valid[0, :, :2] = False
    strong = [weak + 0.1 * torch.rand_like(weak) for _ in range(2)]
    image, label = 2 * torch.randn(size, 3, SIZE, SIZE), random_truth(size, SIZE, SIZE)
    return Batch(image, label, weak, strong[0], valid, strong[1], truth=random_truth(size, SIZE, SIZE))


def places(tensor: Tensor) -> list[tuple[int, ...]]:
    return list(product(*(range(length) for length in tensor.shape)))


def loop_counts(pseudo: PseudoLabel, truth: Tensor) -> dict[str, list[list[int]]]:
    """Shares, accuracies and recalls, pixel by pixel."""
    parts = {"share": "label", "accuracy": "label", "recall": "truth"}
    sets = ("reliable", "unreliable")
    counts = {f"{name}/{part}": [[0] * C, [0] * C] for name in sets for part in parts}
    for place in places(truth):
        label, true = int(pseudo.label[place]), int(truth[place])
        if not pseudo.valid[place]:
            continue
        for name in sets:
            inside = bool(getattr(pseudo, name)[place])
            counts[f"{name}/share"][0][label] += inside
            counts[f"{name}/share"][1][label] += 1
            if true == IGNORE_INDEX:
                continue
            counts[f"{name}/accuracy"][0][label] += inside and label == true
            counts[f"{name}/accuracy"][1][label] += inside
            counts[f"{name}/recall"][0][true] += inside and label == true
            counts[f"{name}/recall"][1][true] += 1
    return counts


def as_lists(counts: dict[str, Tensor], *prefixes: str) -> dict[str, Any]:
    return {name: value.tolist() for name, value in counts.items() if not prefixes or name.split("/")[0] in prefixes}


EDGES: dict[str, Callable[[], tuple[PseudoLabel, Tensor]]] = {
    "random": lambda: (random_pseudo(3), random_truth(3, SIZE, SIZE)),
    "batch of one": lambda: (random_pseudo(1), random_truth(1, SIZE, SIZE)),
    "no reliable pixel": lambda: (random_pseudo(2, reliable=0), random_truth(2, SIZE, SIZE)),
    "all reliable": lambda: (random_pseudo(2, reliable=1), random_truth(2, SIZE, SIZE)),
    "no valid pixel": lambda: (random_pseudo(2, valid=0), random_truth(2, SIZE, SIZE)),
    "absent classes": lambda: (random_pseudo(2, classes=2), random_truth(2, SIZE, SIZE).clamp(min=1)),
    "all ignored": lambda: (random_pseudo(2), random_truth(2, SIZE, SIZE, unknown=1)),
}


@pytest.mark.parametrize("case", EDGES)
def test_pseudo_labels(case: str) -> None:
    torch.manual_seed(3)
    pseudo, truth = EDGES[case]()
    counts = pseudo_label_counts(pseudo, truth, num_classes=C)
    assert as_lists(counts) == loop_counts(pseudo, truth)
    assert all(value.dtype == torch.int64 for value in counts.values())
    unknown = pseudo_label_counts(pseudo, None, num_classes=C)
    assert as_lists(unknown) == loop_counts(pseudo, torch.full_like(truth, IGNORE_INDEX))


@pytest.mark.parametrize(("labeled", "unlabeled"), [(2, 3), (1, 1), (2, 0)])
@pytest.mark.parametrize("unknown", [0.2, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_anchors(labeled: int, unlabeled: int, unknown: float, share: float) -> None:
    torch.manual_seed(0)
    size = labeled + unlabeled
    label = random_truth(size, 3, 5).where(torch.rand(size, 3, 5) < share, torch.tensor(IGNORE_INDEX))
    label[label == 2] = IGNORE_INDEX  # a class without anchors
    is_anchor = torch.stack([label == c for c in range(C)], dim=1)
    truth = random_truth(size, 3, 5, unknown=unknown)
    counts = anchor_counts(is_anchor, truth, labeled=labeled)
    right, known = [0] * C, [0] * C
    for b, y, x in places(label):
        c = int(label[b, y, x])
        if b >= labeled and c != IGNORE_INDEX and truth[b, y, x] != IGNORE_INDEX:
            known[c] += 1
            right[c] += bool(truth[b, y, x] == c)
    present = len(set(label.flatten().tolist()) - {IGNORE_INDEX})
    assert as_lists(counts) == {"anchors/classes": [present, 1], "anchors/accuracy": [right, known]}
    assert anchor_counts(is_anchor, None, labeled=labeled)["anchors/accuracy"].sum() == 0


@pytest.mark.parametrize("rounds", [0, 1, 2, 9])
def test_queues(rounds: int) -> None:
    """Against lists that forget as the rings do; the queue of class 1 stays empty."""
    torch.manual_seed(rounds)
    capacity = (5, 8, 4, 6)
    bank, lists = MemoryBank(capacity, 2, keep_truth=True), [[] for _ in capacity]
    for _ in range(rounds):
        keep, truth = torch.rand(C, 3) < 0.7, random_truth(C, 3)
        keep[1] = False
        bank.push(torch.randn(C, 3, 2), keep, truth)
        for c, k in places(keep):
            if keep[c, k]:
                lists[c] = [*lists[c], int(truth[c, k])][-capacity[c] :]
    known = [[true for true in queue if true != IGNORE_INDEX] for queue in lists]
    expected = {
        "queue/fill": [[len(queue) for queue in lists], [1] * C],
        "queue/purity": [
            [sum(true != c for true in queue) for c, queue in enumerate(known)],
            [len(queue) for queue in known],
        ],
    }
    assert as_lists(queue_counts(bank)) == expected


def test_queues_without_truth_have_a_fill_alone() -> None:
    bank = MemoryBank((4, 4), 2)
    bank.push(torch.randn(2, 3, 2), torch.tensor([[True, True, False], [False] * 3]))
    assert as_lists(queue_counts(bank)) == {"queue/fill": [[2, 0], [1, 1]], "queue/purity": [[0, 0], [0, 0]]}


@pytest.mark.parametrize("valid", [0.0, 0.7])
def test_agreement(valid: float) -> None:
    torch.manual_seed(1)
    first = torch.randn(2, C, 5, 6)
    second, inside = first + torch.randn_like(first), torch.rand(2, 5, 6) < valid
    same = pixels = 0
    for b, y, x in places(inside):
        if inside[b, y, x]:
            scores, others = first[b, :, y, x].tolist(), second[b, :, y, x].tolist()
            same += scores.index(max(scores)) == others.index(max(others))
            pixels += 1
    assert agreement_counts(first, second, inside)["agreement"].tolist() == [same, pixels]


def test_class_counts_leave_out_what_is_ignored_or_elsewhere() -> None:
    label = torch.tensor([[[0, 0, 2, IGNORE_INDEX, 3, 2]]])
    where = torch.tensor([[[True, True, True, True, False, True]]])
    assert class_counts(label, where, C).tolist() == [2, 0, 2, 0]


@pytest.mark.parametrize("class_wise", [True, False])
def test_the_threshold_is_counted_where_there_is_one(class_wise: bool) -> None:
    entropy = torch.tensor([[[0.1, 0.2, 0.3, 9.0]]])
    valid, label = torch.tensor([[[True, True, True, False]]]), torch.zeros(1, 1, 4, dtype=torch.int64)
    pseudo = PseudoLabel(label, entropy, entropy, valid, valid, ~valid)
    counts = threshold_counts(pseudo, Reliability(0.5, class_wise=class_wise), 0.0)
    assert [value.tolist() for value in counts.values()] == ([] if class_wise else [pytest.approx([0.2, 1.0])])
    nothing = replace(pseudo, valid=torch.zeros_like(valid))
    assert [value.tolist() for value in threshold_counts(nothing, Reliability(), 0.0).values()] == [[0.0, 0.0]]
    assert threshold_counts(pseudo, ConfidenceThreshold(), 0.0) == {}


def new_contrast(**options: Any) -> UnreliableContrast:
    sizes = {"anchors": 8, "negatives": 8, "bank_size": 64, "keys_per_step": 16, "min_probability": 0.4}
    return UnreliableContrast(C, 3, negative_keys=NegativeKeys(1, 3), **{**sizes, **options})


def teacher_of(network: nn.Module, other: nn.Module, **options: Any) -> U2PL:
    return with_teacher(u2pl(network, **{"contrast": new_contrast(keep_truth=True), **options}), other)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("mixing", [CutMix(), CutOut(), NoMixing()], ids=["cutmix", "cutout", "none"])
def test_of_u2pl(tiny_network: Network, seed: int, passes: int, mixing: Any) -> None:
    """Partition, mixing and anchors of the step, followed pixel by pixel."""
    student, other = tiny_network(seed), tiny_network(seed + 50)
    batch = replace(random_batch(seed), strong_2=None)
    method = teacher_of(student, other, mixing=mixing, teacher_passes=passes, reliability=Reliability(0.5))
    torch.manual_seed(7)
    counts = method.diagnose(student, batch, 0.4)

    weak, valid = batch.weak, batch.valid
    with torch.no_grad():
        view = other.eval()(weak)
        ours = student.eval()(weak).logits
    p = view.logits.double().softmax(dim=1)
    entropy = -(p * p.log()).sum(dim=1)
    gamma = np.quantile(entropy[valid].numpy(), 1 - 0.5 * 0.6)
    assert counts.pop("reliable/gamma").tolist() == pytest.approx([gamma, 1], rel=1e-5)
    reliable = valid & (entropy < gamma)
    label = view.logits.argmax(dim=1)
    pseudo = PseudoLabel(label, entropy, entropy, valid, reliable, valid & ~reliable)
    assert as_lists(counts, "reliable", "unreliable") == loop_counts(pseudo, batch.truth)
    assert counts["agreement"].tolist() == [int((ours.argmax(1) == label)[valid].sum()), int(valid.sum())]

    torch.manual_seed(7)
    keep = mixing.draw(pseudo).keep
    with torch.no_grad():
        if passes == 2:
            partner = torch.zeros_like(weak) if mixing == CutOut() else batch.strong.roll(-1, dims=0)
            probability = other(torch.where(keep.unsqueeze(1), batch.strong, partner)).coarse.softmax(dim=1)
        else:
            small = keep[:, ::2, ::2].unsqueeze(1)
            partner = torch.zeros_like(view.coarse) if mixing == CutOut() else view.coarse.roll(-1, dims=0)
            probability = torch.where(small, view.coarse, partner).softmax(dim=1)
        labeled = other(batch.image).coarse.softmax(dim=1)
    right, known, present = [0] * C, [0] * C, set()
    for b, y, x in places(keep[:, ::2, ::2]):
        own = int(batch.label[b, 2 * y, 2 * x])
        if own != IGNORE_INDEX and labeled[b, own, y, x] > 0.4:
            present.add(own)
        if not keep[b, 2 * y, 2 * x] and mixing == CutOut():
            continue
        source = (b if keep[b, 2 * y, 2 * x] else (b + 1) % len(keep), 2 * y, 2 * x)
        c, true = int(label[source]), int(batch.truth[source])
        if reliable[source] and probability[b, c, y, x] > 0.4:
            present.add(c)
            known[c] += true != IGNORE_INDEX
            right[c] += true == c
    assert counts["anchors/classes"].tolist() == [len(present), 1]
    assert counts["anchors/accuracy"].tolist() == [right, known]
    assert sum(known) > 0
    assert counts["queue/fill"].tolist() == [[0] * C, [1] * C]


def test_before_there_is_a_teacher_nothing_is_counted(tiny_network: Network) -> None:
    student = tiny_network()
    method = u2pl(student, contrast=new_contrast(), schedule=Schedule(warmup=0.5))
    assert method.diagnose(student, random_batch(), 0.2) == {}
    assert Supervised().diagnose(student, random_batch(), 0.2) == {}


def test_a_mean_teacher_has_neither_anchors_nor_queues(tiny_network: Network) -> None:
    student = tiny_network()
    method = mean_teacher(student)
    method.teacher.started = True
    names = {name.split("/")[0] for name in method.diagnose(student, random_batch(), 0.2)}
    assert names == {"reliable", "unreliable", "agreement"}


def test_without_truth_what_needs_none_is_still_there(tiny_network: Network) -> None:
    student = tiny_network()
    counts = teacher_of(student, tiny_network(9)).diagnose(student, replace(random_batch(), truth=None), 0.2)
    assert counts["reliable/accuracy"].sum() == counts["anchors/accuracy"].sum() == 0
    assert counts["reliable/share"].sum() > 0
    assert counts["agreement"].sum() > 0


@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.1])
@pytest.mark.parametrize("size", [1, 2])
def test_of_fixmatch_and_unimatch(tiny_network: Network, threshold: float, size: int) -> None:
    batch = random_batch(2, size)
    for kind in (FixMatch, UniMatch):
        student = tiny_network(1)
        student.stem[1].momentum = 0.0  # statistics stay, so that the loop sees what the method saw
        counts = kind(threshold=threshold).diagnose(student, batch, 0.3)
        with torch.no_grad():
            if kind is FixMatch:
                logits = student.eval()(batch.weak).logits
            else:
                logits = student.train()(torch.cat((batch.image, batch.weak))).logits[size:]
        confidence, label = logits.softmax(dim=1).max(dim=1)
        reliable = batch.valid & (confidence >= threshold)
        pseudo = PseudoLabel(label, confidence, confidence, batch.valid, reliable, batch.valid & ~reliable)
        assert as_lists(counts) == loop_counts(pseudo, batch.truth)


@pytest.mark.parametrize("passes", [1, 2])
def test_the_truth_of_the_keys_is_that_of_their_pixels(tiny_network: Network, passes: int) -> None:
    """No two pixels are embedded alike, so that a key tells where it comes from."""
    student = tiny_network()
    batch = random_batch(4)
    method = teacher_of(student, tiny_network(9), teacher_passes=passes, mixing=CutMix(), reliability=Reliability(0.5))
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    push = method.contrast.bank.push
    method.contrast.bank.push = lambda *parts: (seen.append(parts), push(*parts))[1]  # type: ignore[method-assign]
    torch.manual_seed(5)
    method(student, batch, 0.0)
    (keys, keep, truth), bank = seen[0], method.contrast.bank

    torch.manual_seed(5)
    views = look(method, batch, 0.0)
    embedding = views.keys.embedding
    mixed = [mix.apply(batch.truth) for mix in views.mixed.mixes]
    expected = torch.cat((batch.label, *mixed))[:, ::2, ::2]
    for c, k in places(keep):
        if keep[c, k]:
            where = (embedding == keys[c, k].view(1, -1, 1, 1)).all(dim=1).nonzero()
            assert {int(expected[tuple(place)]) for place in where} == {int(truth[c, k])}
    assert keep.sum() > 20
    for c in range(C):
        start, fill = int(bank.start[c]), int(bank.fill[c])
        assert bank.truth[start : start + fill].tolist() == truth[c][keep[c]].tolist()


@pytest.mark.parametrize("kind", ["u2pl", "mean_teacher", "fixmatch", "unimatch"])
def test_no_loss_depends_on_the_truth(tiny_network: Network, kind: str) -> None:
    """The same losses, gradients and keys, whatever the true classes are said to be, and when nothing is said."""
    results = []
    for seed in (None, 0, 1):
        student = tiny_network(3)
        keep_truth = seed is not None
        methods: dict[str, Callable[[], Any]] = {
            "u2pl": lambda: teacher_of(student, tiny_network(9), contrast=new_contrast(keep_truth=keep_truth)),  # noqa: B023
            "mean_teacher": lambda: mean_teacher(student),  # noqa: B023
            "fixmatch": lambda: FixMatch(threshold=0.5),
            "unimatch": lambda: UniMatch(threshold=0.5),
        }
        method, batch = methods[kind](), replace(random_batch(4), truth=None)
        if keep_truth:
            torch.manual_seed(seed)
            batch = replace(batch, truth=random_truth(2, SIZE, SIZE, unknown=0.5 * seed))
        torch.manual_seed(6)
        losses = method(student, batch, 0.2)
        gradient = torch.autograd.grad(sum(losses.values()), list(student.parameters()), allow_unused=True)
        state = {name: value for name, value in method.state_dict().items() if not name.endswith("bank.truth")}
        results.append((losses, gradient, state, torch.get_rng_state()))
    for losses, gradient, state, random in results[1:]:
        assert all(torch.equal(losses[name], loss) for name, loss in results[0][0].items())
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(gradient, results[0][1], strict=True))
        assert list(state) == list(results[0][2])
        assert all(torch.equal(v, state[k]) for k, v in results[0][2].items() if isinstance(v, Tensor))
        assert torch.equal(random, results[0][3])
