"""The step of weakly supervised U2PL against the same thing pixel by pixel, and its phases."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from assemble import look, weak_u2pl, with_teacher
from torch import Tensor, nn

from u2pl.methods import Schedule, WeakU2PL
from u2pl.methods.seeding import Seeding
from u2pl.pixels import CutMix, CutOut, NoMixing, Reliability, UnreliableContrast
from u2pl.pixels.cam import PixelAdaptiveRefinement
from u2pl.pixels.negative_keys import NegativeKeys
from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel

Network = Callable[..., nn.Module]
C, SIZE, SMALL = 4, 8, 4
M = 4 * SMALL * SMALL  # every set of a step is smaller
LOW, HIGH, DELTA = 1, 3, 0.4
REFINEMENT = PixelAdaptiveRefinement(1, (1,))
SEEDING = Seeding(warmup=0.2, scales=(1.0, 2.0), stride=2, refinement=REFINEMENT, high=0.6, low=0.3)


def random_batch(seed: int = 0, *, labeled: int = 0, untagged: bool = False) -> Batch:
    torch.manual_seed(seed)
    weak = 2 * torch.randn(2, 3, SIZE, SIZE)
    valid = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    valid[0, :, :2] = False
    tags = torch.tensor([[True, False, True, False], [True, True, False, False]])
    tagged = torch.tensor([True, not untagged])
    label = torch.randint(0, C, (labeled, SIZE, SIZE))
    label[:, :1] = IGNORE_INDEX
    return Batch(
        image=2 * torch.randn(labeled, 3, SIZE, SIZE),
        label=label,
        weak=weak,
        strong=weak + 0.1 * torch.rand_like(weak),
        valid=valid,
        tags=tags | ~tagged[:, None],
        tagged=tagged,
    )


def new_contrast(*, tags: bool = True, keep_truth: bool = False) -> UnreliableContrast:
    sizes = {"anchors": M, "negatives": M, "bank_size": 2 * M, "keys_per_step": M, "min_probability": DELTA}
    return UnreliableContrast(C, 3, negative_keys=NegativeKeys(LOW, HIGH, tags=tags), keep_truth=keep_truth, **sizes)


def build(network: nn.Module, **options: Any) -> WeakU2PL:
    defaults: dict[str, Any] = {"contrast": new_contrast(), "seeding": SEEDING}
    defaults |= {"schedule": Schedule(warmup=0.5), "reliability": Reliability(0.5)}
    return weak_u2pl(network, **{**defaults, **options})


def taught(tiny_network: Network, seed: int = 0, **options: Any) -> tuple[nn.Module, WeakU2PL]:
    """A student in evaluation mode, so that it may be run again, and its method with a teacher that is another."""
    student = tiny_network(seed, classification=True).eval()
    return student, with_teacher(build(student, **options), tiny_network(seed + 50, classification=True))


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> float:
    places = product(range(len(labels)), range(SIZE), range(SIZE))
    values = [
        -logits[b, :, y, x].log_softmax(dim=0)[labels[b, y, x]].item()
        for b, y, x in places
        if labels[b, y, x] != IGNORE_INDEX
    ]
    return sum(values) / max(1, len(values))


def limited_softmax(scores: list[float], allowed: list[bool]) -> list[float]:
    """Probabilities of the allowed classes alone."""
    powers = [math.exp(score) if may else 0.0 for score, may in zip(scores, allowed, strict=True)]
    return [power / sum(powers) for power in powers]


def loop_classification(student: nn.Module, batch: Batch) -> float:
    activation = student(torch.cat((batch.image, batch.weak))).activation
    values = []
    for b in range(len(activation)):
        if b < len(batch.image):
            label = batch.label[b]
            valid = label != IGNORE_INDEX
            shown = [bool((label == k).any()) for k in range(C)]
        else:
            weak = b - len(batch.image)
            if not batch.tagged[weak]:
                continue
            valid, shown = batch.valid[weak], batch.tags[weak].tolist()
        terms = []
        for k in range(1, C):
            total = weight = 0.0
            for y, x in product(range(SIZE), range(SIZE)):
                if valid[y, x]:
                    total += activation[b, k - 1, y // 2, x // 2].item()
                    weight += 1
            p = 1 / (1 + math.exp(-total / weight))
            terms.append(-math.log(p if shown[k] else 1 - p))
        values.append(sum(terms) / len(terms))
    return sum(values) / len(values)


def loop_contrast(anchors: list[list[tuple[Tensor, Tensor]]], negatives: list[list[Tensor]]) -> float:
    """Mean over the classes that have both; every set is gone through in turn."""
    per_class = []
    for c in range(C):
        if not anchors[c] or not negatives[c]:
            continue
        centre = torch.stack([key for _, key in anchors[c]]).mean(dim=0)
        drawn = torch.stack([negatives[c][k % len(negatives[c])] for k in range(M)])
        total = 0.0
        for k in range(M):
            anchor = anchors[c][k % len(anchors[c])][0]
            positive = F.cosine_similarity(anchor, centre, dim=0) / 0.5
            others = F.cosine_similarity(anchor.unsqueeze(0), drawn, dim=1) / 0.5
            total += (torch.cat((positive.view(1), others)).logsumexp(dim=0) - positive).item()
        per_class.append(total / M)
    assert len(per_class) >= 2
    return sum(per_class) / len(per_class)


def loop_step(student: nn.Module, teacher: nn.Module, batch: Batch, keep: Tensor, *, alpha: float, passes: int,
              tag_negatives: bool, share: float) -> dict[str, float]:  # fmt: skip
    """Phase 3 without labels. ``keep`` is the mask of CutMix, False where the next image shows."""
    places = list(product(range(2), range(SIZE), range(SIZE)))
    with torch.no_grad():
        view = teacher(batch.weak)
        tags = batch.tags.tolist()
        p = {place: limited_softmax(view.logits[place[0], :, place[1], place[2]].tolist(), tags[place[0]])
             for place in places}  # fmt: skip
        entropy = {place: -sum(v * math.log(v) for v in p[place] if v > 0) for place in places}
        gamma = np.quantile([entropy[place] for place in places if batch.valid[place]], 1 - alpha)
        probability = torch.tensor([p[place] for place in places]).view(2, SIZE, SIZE, C).permute(0, 3, 1, 2)
        seeding = replace(SEEDING, share=share)
        seeds = seeding(teacher, batch.weak, batch.tags[:, 1:], batch.valid, probability)
        mixed, target = batch.strong.clone(), torch.full(keep.shape, IGNORE_INDEX)
        unreliable, source, pixels = torch.zeros_like(keep), torch.zeros(keep.shape, dtype=torch.long), 0
        for b, y, x in places:
            origin = b if keep[b, y, x] else (b + 1) % 2
            source[b, y, x] = origin
            mixed[b, :, y, x] = batch.strong[origin, :, y, x]
            if not batch.valid[origin, y, x]:
                continue
            pixels += 1
            if entropy[origin, y, x] < gamma:
                target[b, y, x] = int(np.argmax(p[origin, y, x]))
            else:
                unreliable[b, y, x] = True
        output = student(torch.cat((batch.weak, mixed)))
        reliable = int((target != IGNORE_INDEX).sum())
        losses = {
            "supervised": mean_cross_entropy(output.logits[:2], seeds),
            "classification": loop_classification(student, batch),
            "unsupervised": pixels / max(1, reliable) * mean_cross_entropy(output.logits[2:], target),
        }
        keys = teacher(torch.cat((batch.weak, mixed)))
        anchors: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(C)]
        negatives: list[list[Tensor]] = [[] for _ in range(C)]
        for b, y, x in product(range(4), range(0, SIZE, 2), range(0, SIZE, 2)):
            of = b if b < 2 else int(source[b - 2, y, x])
            v, u = y // 2, x // 2
            own = b < 2 or passes == 2
            coarse = (keys.coarse if own else view.coarse)[b if own else of, :, v, u].tolist()
            key = (keys.embedding if own else view.embedding)[b if own else of, :, v, u]
            q = limited_softmax(coarse, tags[of])
            for c in range(C):
                rank = sum(1 for other in q if other > q[c]) + sum(1 for other in q[:c] if other == q[c])
                seed, pseudo = (
                    (int(seeds[b, y, x]), IGNORE_INDEX) if b < 2 else (IGNORE_INDEX, int(target[b - 2, y, x]))
                )
                if c in (seed, pseudo) and q[c] > DELTA:
                    anchors[c].append((output.embedding[b, :, v, u], key))
                hard = seed not in (IGNORE_INDEX, c) and rank < LOW
                unlikely = b >= 2 and bool(unreliable[b - 2, y, x]) and LOW <= rank < HIGH
                absent = tag_negatives and not tags[of][c] and bool(batch.valid[of, y, x])
                if hard or unlikely or absent:
                    negatives[c].append(key)
        losses["contrastive"] = loop_contrast(anchors, negatives)
    return losses


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize(("tag_negatives", "share"), [(True, 0.5), (True, 0.0), (False, 1.0)])
def test_a_step_pixel_by_pixel(
    tiny_network: Network, seed: int, passes: int, tag_negatives: bool, share: float
) -> None:
    seeding = replace(SEEDING, share=share)
    contrast = new_contrast(tags=tag_negatives)
    student, method = taught(tiny_network, seed, teacher_passes=passes, contrast=contrast, seeding=seeding)
    batch = random_batch(seed)
    torch.manual_seed(seed)
    losses = method(student, batch, 0.6)
    assert list(losses) == ["supervised", "unsupervised", "contrastive", "classification"]
    torch.manual_seed(seed)
    pseudo = PseudoLabel.from_logits(torch.zeros(2, C, SIZE, SIZE))
    keep = CutMix().draw(pseudo).keep
    expected = loop_step(
        student,
        method.u2pl.teacher.network,
        batch,
        keep,
        alpha=0.5 * 0.4,
        passes=passes,
        tag_negatives=tag_negatives,
        share=share,
    )
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-3)


def test_tags_in_the_first_phase_seeds_in_the_second(tiny_network: Network) -> None:
    student = tiny_network(3, classification=True)
    method = build(student)
    batch = random_batch()
    first = method(student, batch, 0.19)
    assert list(first) == ["supervised", "contrastive", "classification"]
    assert first["supervised"].item() == first["contrastive"].item() == 0
    assert first["classification"].item() == pytest.approx(loop_classification(copy.deepcopy(student), batch), rel=1e-4)
    method.after_step(student)
    assert not method.u2pl.teacher.started
    assert list(method.candidates(student)) == ["student"]

    with torch.no_grad():
        student.classification.weight += 1
    second = method(student.eval(), batch, 0.2)
    assert list(second) == ["supervised", "contrastive", "classification"]
    assert method.u2pl.teacher.started
    assert torch.equal(method.u2pl.teacher.network.classification.weight, student.classification.weight)
    seeds = SEEDING(method.u2pl.teacher.network, batch.weak, batch.tags[:, 1:], batch.valid)
    logits = student(batch.weak).logits
    assert second["supervised"].item() == pytest.approx(mean_cross_entropy(logits, seeds), rel=1e-4)
    assert second["contrastive"].item() == 0
    method.after_step(student)
    assert method.u2pl.teacher.updates == 1
    assert list(method.candidates(student)) == ["student", "teacher"]
    assert "unsupervised" in method(student, batch, 0.5)
    assert method.u2pl.teacher.updates == 1  # started once


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.7])
def test_every_parameter_has_a_gradient_in_every_phase(tiny_network: Network, progress: float) -> None:
    """Distributed training needs that; in a batch of images without tags, too."""
    for batch in (random_batch(), random_batch(untagged=True), replace(random_batch(), tagged=torch.zeros(2).bool())):
        student = tiny_network(0, classification=True)
        losses = build(student)(student, batch, progress)
        sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values())
        assert [name for name, p in student.named_parameters() if p.grad is None] == []


def test_the_warm_up_ends_no_earlier_than_that_of_the_maps(tiny_network: Network) -> None:
    assert build(tiny_network(classification=True)).u2pl.schedule.warmup == 0.5
    assert build(tiny_network(classification=True), schedule=Schedule(warmup=0.2)).u2pl.schedule.warmup == 0.2
    for schedule in (Schedule(warmup=0.1), Schedule(warmup=0.1, ramp=0.5)):
        with pytest.raises(ValueError, match=r"ends at 0\.1, before that of the seeding, 0\.2"):
            build(tiny_network(classification=True), schedule=schedule)


def test_what_is_not_tagged_is_never_a_pseudo_label(tiny_network: Network) -> None:
    _, method = taught(tiny_network, mixing=NoMixing())
    for seed in range(5):
        batch = random_batch(seed)
        views = look(method.u2pl, method.seeded(batch, 0.6), 0.6)
        for b in range(2):
            assert set(views.pseudo.label[b].unique().tolist()) <= {c for c in range(C) if batch.tags[b, c]}
        raw = method.u2pl.teacher(batch.weak).logits
        assert not torch.equal(views.pseudo.label, raw.argmax(dim=1))


def test_an_image_without_tags_is_as_in_u2pl(tiny_network: Network) -> None:
    _, method = taught(tiny_network, mixing=NoMixing())
    batch = random_batch(untagged=True)
    seeded = method.seeded(batch, 0.7)
    assert (seeded.label[1] == IGNORE_INDEX).all()
    assert (seeded.label[0] != IGNORE_INDEX).any()
    views = look(method.u2pl, seeded, 0.6)
    plain = PseudoLabel.from_logits(method.u2pl.teacher(batch.weak).logits)
    assert torch.equal(views.pseudo.label[1], plain.label[1])
    torch.testing.assert_close(views.pseudo.entropy[1], plain.entropy[1])
    absent = views.keys.absent
    assert not absent[[1, 3]].any()
    assert absent[0, 1, :, 1:].all()


@pytest.mark.parametrize("passes", [1, 2])
def test_labeled_images_come_first_and_know_their_own_tags(tiny_network: Network, passes: int) -> None:
    student, method = taught(tiny_network, 1, teacher_passes=passes, mixing=NoMixing())
    batch = random_batch(labeled=3)
    losses = method(student, batch, 0.7)
    seeded = method.seeded(batch, 0.7)
    assert torch.equal(seeded.image[:3], batch.image)
    assert torch.equal(seeded.label[:3], batch.label)
    logits = student(seeded.image).logits
    assert losses["supervised"].item() == pytest.approx(mean_cross_entropy(logits, seeded.label), rel=1e-4)
    assert losses["classification"].item() == pytest.approx(loop_classification(student, batch), rel=1e-4)
    views = look(method.u2pl, seeded, 0.7)
    assert len(views.images) == 3 + 2 + 2
    plain = method.u2pl.teacher(views.images).coarse
    torch.testing.assert_close(views.keys.probability[:3], plain[:3].softmax(dim=1))  # a label needs no tags
    absent = views.keys.absent
    assert not absent[:3].any()
    assert torch.equal(absent[3:5], absent[5:])


def test_tags_travel_with_erased_pixels(tiny_network: Network) -> None:
    _, method = taught(tiny_network, mixing=CutOut())
    seeded = method.seeded(random_batch(), 0.6)
    views = look(method.u2pl, seeded, 0.6)
    kept = views.mixed.mixes[0].keep[:, ::2, ::2]
    absent = views.keys.absent
    for b, c, y, x in product(range(2), range(C), range(SMALL), range(SMALL)):
        expected = not seeded.tags[b, c] and kept[b, y, x] and seeded.valid[b, 2 * y, 2 * x]
        assert absent[2 + b, c, y, x] == expected


def test_without_a_contrast(tiny_network: Network) -> None:
    student = tiny_network(0, classification=True, projection=False)
    method = build(student, contrast=None)
    assert list(method(student, random_batch(), 0.7)) == ["supervised", "unsupervised", "classification"]


def test_batches_without_tags_are_refused(tiny_network: Network) -> None:
    student = tiny_network(classification=True)
    with pytest.raises(ValueError, match="needs a batch with tags"):
        build(student)(student, replace(random_batch(), tags=None), 0.0)


def test_feature_dropout(tiny_network: Network) -> None:
    student, method = taught(tiny_network, feature_dropout=True)
    plain = taught(tiny_network)[1]
    results = []
    for each in (method, plain):
        torch.manual_seed(0)
        results.append(each(student, random_batch(), 0.7))
    for name in ("supervised", "classification"):
        assert results[0][name].item() == pytest.approx(results[1][name].item(), rel=1e-5)
    assert results[0]["unsupervised"].item() != results[1]["unsupervised"].item()


def test_diagnosis_goes_by_truth_and_not_by_seeds(tiny_network: Network) -> None:
    student, method = taught(tiny_network, contrast=new_contrast(keep_truth=True), mixing=NoMixing())
    batch = replace(random_batch(), truth=torch.randint(0, C, (2, SIZE, SIZE)))
    method(student, batch, 0.7)
    views = look(method.u2pl, method.seeded(batch, 0.7), 0.7)
    assert torch.equal(views.keys.truth, batch.truth[:, ::2, ::2].repeat(2, 1, 1))
    counts = method.diagnose(student, batch, 0.7)
    assert {"reliable/accuracy", "anchors/classes", "queue/purity", "agreement"} <= counts.keys()
    fresh = build(tiny_network(classification=True))
    assert fresh.diagnose(student, batch, 0.0) == {}


@pytest.mark.parametrize("passes", [1, 2])
def test_its_teacher_is_asked_what_is_likely(tiny_network: Network, passes: int) -> None:
    batch, weight = random_batch(), torch.arange(1.0, C + 1)
    _, method = taught(tiny_network, teacher_passes=passes, class_weight=weight)
    seeded = method.seeded(batch, 0.3)
    seen = method.u2pl.teacher(batch.weak).logits - weight.log().view(1, C, 1, 1)
    likely = seen.masked_fill(~batch.tags[:, :, None, None], -math.inf).softmax(dim=1)
    found = method.u2pl.teacher_pass(seeded).logits[-len(batch.weak) :]
    torch.testing.assert_close(found.softmax(dim=1), likely)
    torch.testing.assert_close(method.segmentation(batch, 0.7), likely)  # and so for its share in the seeds
    assert method.segmentation(batch, 0.3) is None  # which it has after the warm-up
