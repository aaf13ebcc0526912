"""A step whose unlabeled images carry labeled pixels of another domain, against loops over pixels."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from assemble import look, mean_teacher, u2pl, with_teacher
from test_u2pl import SIZE, C, loop_contrast, new_contrast, random_batch
from torch import Tensor, nn

from u2pl.methods import FixMatch, Schedule, StrongViews, UniMatch
from u2pl.methods.weighting import ConfidentShare
from u2pl.pixels import CrossDomainClassMix, CutMix, Reliability
from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel

Network = Callable[..., nn.Module]


def domains(labeled: int, unlabeled: int, seed: int = 0) -> Batch:
    """A batch whose parts differ in number; some source pixels are ignored, some target pixels are padding."""
    source, target = random_batch(seed, labeled), random_batch(seed + 100, unlabeled)
    return replace(target, image=source.image, label=source.label)


def loop_mix(teacher: nn.Module, batch: Batch, keep: Tensor, alpha: float) -> dict[str, Tensor]:
    """Mixed images with the target, the true labels, validity and reliability of each of their pixels."""
    with torch.no_grad():
        p = teacher(batch.weak).logits.softmax(dim=1)
    places = list(product(range(len(keep)), range(SIZE), range(SIZE)))
    entropy = {
        (b, y, x): -sum(value * math.log(value) for value in p[b, :, y, x].double().tolist()) for b, y, x in places
    }
    gamma = float(np.quantile([entropy[place] for place in places if batch.valid[place]], 1 - alpha))
    mixed = {
        "image": batch.strong.clone(),
        "target": torch.full(keep.shape, IGNORE_INDEX),
        "known": torch.full(keep.shape, IGNORE_INDEX),
        "valid": torch.zeros_like(keep),
        "unreliable": torch.zeros_like(keep),
    }
    for b, y, x in places:
        source = b % len(batch.image)
        if not keep[b, y, x]:
            assert batch.label[source, y, x] != IGNORE_INDEX
            mixed["image"][b, :, y, x] = batch.image[source, :, y, x]
            mixed["target"][b, y, x] = mixed["known"][b, y, x] = batch.label[source, y, x]
            mixed["valid"][b, y, x] = True
        elif batch.valid[b, y, x]:
            mixed["valid"][b, y, x] = True
            mixed["unreliable"][b, y, x] = entropy[b, y, x] >= gamma
            if entropy[b, y, x] < gamma:
                mixed["target"][b, y, x] = p[b, :, y, x].argmax()
    return mixed


def loop_keys(teacher: nn.Module, batch: Batch, mixed: dict[str, Tensor], keep: Tensor, passes: int) -> Any:
    """The teacher's coarse scores and embeddings of labeled and mixed images."""
    with torch.no_grad():
        own, weak = teacher(batch.image), teacher(batch.weak)
        if passes == 2:
            both = teacher(torch.cat((batch.image, mixed["image"])))
            return both.coarse, both.embedding
    views = []
    for name in ("coarse", "embedding"):
        source, target = getattr(own, name), getattr(weak, name).clone()
        for b, y, x in product(range(len(keep)), range(SIZE // 2), range(SIZE // 2)):
            if not keep[b, 2 * y, 2 * x]:
                target[b, :, y, x] = source[b % len(source), :, y, x]
        views.append(torch.cat((source, target)))
    return views


def loop_unsupervised(logits: Tensor, mixed: dict[str, Tensor], share: float | None) -> float:
    """lambda_u L_u or, with a share, DACS's weighted mean."""
    total, pixels = 0.0, 0
    for b, y, x in product(range(len(logits)), range(SIZE), range(SIZE)):
        target = int(mixed["target"][b, y, x])
        if target != IGNORE_INDEX:
            predicted = mixed["known"][b, y, x] == IGNORE_INDEX
            weight = share if share is not None and predicted else 1.0
            total -= weight * logits[b, :, y, x].log_softmax(dim=0)[target].item()
            pixels += 1
    lambda_u = 1.0 if share is not None else int(mixed["valid"].sum()) / max(1, pixels)
    return lambda_u * total / max(1, pixels)


CASES = [(2, 2, 0), (2, 3, 1), (1, 3, 2), (3, 2, 3), (1, 1, 4)]


@pytest.mark.parametrize(("labeled", "unlabeled", "seed"), CASES)
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("negatives_from", ["unreliable", "all"])
def test_a_step(
    tiny_network: Network, labeled: int, unlabeled: int, seed: int, passes: int, negatives_from: Any
) -> None:
    student, other, batch = tiny_network(seed).eval(), tiny_network(seed + 50).eval(), domains(labeled, unlabeled, seed)
    options = {"teacher_passes": passes, "mixing": CrossDomainClassMix(C), "reliability": Reliability(0.5)}
    method = with_teacher(u2pl(student, contrast=new_contrast(pixels=negatives_from), **options), other)
    torch.manual_seed(seed)
    losses = method(student, batch, 0.25)

    torch.manual_seed(seed)
    keep = CrossDomainClassMix(C).draw(PseudoLabel.from_logits(other(batch.weak).logits), batch.label).keep
    assert not keep.all()
    mixed = loop_mix(other, batch, keep, alpha=0.5 * 0.75)  # no entropy lies on this quantile
    output = student(torch.cat((batch.image, mixed["image"])))
    assert losses["unsupervised"].item() == pytest.approx(
        loop_unsupervised(output.logits[labeled:], mixed, None), rel=1e-3
    )
    coarse, embedding = loop_keys(other, batch, mixed, keep, passes)
    unlabeled_negatives = mixed["unreliable"] if negatives_from == "unreliable" else mixed["valid"]
    negatives = unlabeled_negatives & (mixed["known"] == IGNORE_INDEX)
    half = slice(None, None, 2)
    sets = {
        "target": torch.cat((batch.label, mixed["target"])),
        "label": torch.cat((batch.label, mixed["known"])),
        "unreliable": torch.cat((torch.zeros_like(batch.label, dtype=torch.bool), negatives)),
    }
    views = {"z": output.embedding, "key": embedding, "p": coarse.softmax(dim=1)}
    per_class = loop_contrast(views, {name: value[:, half, half].flatten().tolist() for name, value in sets.items()})
    assert len(per_class) >= 1
    assert losses["contrastive"].item() == pytest.approx(sum(per_class) / len(per_class), rel=1e-3)


@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.1])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("mixing", [CrossDomainClassMix(C), CutMix()], ids=["cross_domain", "cutmix"])
def test_the_weight_of_dacs(tiny_network: Network, threshold: float, alpha: float, mixing: Any) -> None:
    student, other, batch = tiny_network(1).eval(), tiny_network(51).eval(), domains(2, 3, 1)
    options = {"reliability": Reliability(alpha, dynamic=False), "schedule": Schedule(warmup=0.1, ramp=0.4)}
    method = with_teacher(mean_teacher(student, mixing=mixing, weighting=ConfidentShare(threshold), **options), other)
    torch.manual_seed(3)
    views = look(method, batch, 0.3)
    torch.manual_seed(3)
    losses = method(student, batch, 0.3)
    confidence = other(batch.weak).logits.softmax(dim=1).amax(dim=1)
    confident = [confidence[tuple(place)].item() >= threshold for place in batch.valid.nonzero().tolist()]
    mixed = {"target": views.mixed.pseudo.target(), "known": views.mixed.true_label()}
    assert (mixed["known"] == IGNORE_INDEX).all() == isinstance(mixing, CutMix)
    expected = loop_unsupervised(student(views.images).logits[2:], mixed, sum(confident) / len(confident))
    assert losses["unsupervised"].item() == pytest.approx(0.5 * expected, rel=1e-3)


def test_the_weight_of_dacs_with_dropped_features_and_without_a_pixel(tiny_network: Network) -> None:
    student, other, batch = tiny_network(1).eval(), tiny_network(51).eval(), domains(2, 2, 1)
    options = {"weighting": ConfidentShare(0.5), "mixing": CrossDomainClassMix(C), "reliability": Reliability(0)}
    method = with_teacher(mean_teacher(student, feature_dropout=True, **options), other)
    torch.manual_seed(3)
    views = look(method, batch, 0.3)
    torch.manual_seed(3)
    loss = method(student, batch, 0.3)["unsupervised"]
    logits = student(torch.cat((views.images, batch.weak)), dropped=2).logits
    share = (views.pseudo.confidence[batch.valid] >= 0.5).float().mean().item()
    mixed = {"target": views.mixed.pseudo.target(), "known": views.mixed.true_label()}
    plain = {"target": views.pseudo.target(), "known": torch.full_like(mixed["known"], IGNORE_INDEX)}
    parts = [loop_unsupervised(logits[2:4], mixed, share), loop_unsupervised(logits[-2:], plain, share)]
    assert loss.item() == pytest.approx(sum(parts) / 2, rel=1e-3)

    nothing = replace(batch, label=torch.full_like(batch.label, IGNORE_INDEX), valid=torch.zeros_like(batch.valid))
    losses = method(student, nothing, 0.3)
    assert losses["unsupervised"].item() == 0
    sum(losses.values()).backward()


@pytest.mark.parametrize("passes", [1, 2])
def test_sources_without_a_label_paste_nothing(tiny_network: Network, passes: int) -> None:
    """The step is then that without any mixing."""
    student, batch = tiny_network(1).eval(), domains(2, 3, 1)
    batch = replace(batch, label=torch.full_like(batch.label, IGNORE_INDEX))
    results = []
    for mixing in (CrossDomainClassMix(C), CutMix(area=0.0)):
        method = with_teacher(
            u2pl(student, contrast=new_contrast(), mixing=mixing, teacher_passes=passes), tiny_network(51)
        )
        losses = method(student, batch, 0.2)
        results.append([losses[name].item() for name in ("supervised", "unsupervised")])
        assert losses["contrastive"].isfinite()
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    assert results[0][0] == 0


@pytest.mark.parametrize("kind", [FixMatch, UniMatch])
def test_fixmatch_and_unimatch_across_domains(tiny_network: Network, kind: Any) -> None:
    """Whatever the threshold, pasted pixels train: with one that no prediction reaches, they alone do."""
    student, batch = tiny_network(1).eval(), domains(2, 2, 1)
    batch = batch if kind is FixMatch else replace(batch, strong_2=batch.strong - 0.3)
    torch.manual_seed(3)
    method = kind(threshold=1.1, mix=StrongViews(CrossDomainClassMix(C)))
    loss = method(student, batch, 0.2)["unsupervised"]
    torch.manual_seed(3)
    pseudo = PseudoLabel.from_logits(student.eval()(batch.weak).logits, batch.valid)
    pseudo = replace(pseudo, reliable=torch.zeros_like(batch.valid), unreliable=batch.valid)
    views = [batch.strong] if kind is FixMatch else [batch.strong, batch.strong_2]
    mixes = [CrossDomainClassMix(C).draw(pseudo, batch.label) for _ in views]
    images = torch.cat([mix.apply(view, batch.image) for mix, view in zip(mixes, views, strict=True)])
    logits = student.train(kind is FixMatch)(torch.cat((batch.image, images)) if kind is FixMatch else images).logits
    known = torch.cat([mix.true_label() for mix in mixes])
    valid = torch.cat([batch.valid | ~mix.keep for mix in mixes])
    total = F.cross_entropy(logits[-len(known) :], known, ignore_index=IGNORE_INDEX, reduction="sum")
    expected = total / valid.sum() / (1 if kind is FixMatch else 2)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_diagnosis_counts_anchors_that_have_no_label(tiny_network: Network) -> None:
    """Pasted pixels are right by definition: they are classes with an anchor, and no pseudo-label."""
    student, batch = tiny_network(1).eval(), domains(2, 2, 1)
    batch = replace(batch, truth=torch.randint(0, C, batch.valid.shape))
    options = {"mixing": CrossDomainClassMix(C), "reliability": Reliability(1.0)}
    method = with_teacher(u2pl(student, contrast=new_contrast(), **options), tiny_network(51))
    counts = method.diagnose(student, batch, 0.0)  # alpha is one: no pixel is reliable, but for the pasted ones
    assert counts["anchors/accuracy"].sum() == 0
    assert counts["anchors/classes"][0] > 0
    assert counts["reliable/share"][0].sum() == 0
