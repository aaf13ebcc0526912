"""What a step does with parts that its paper does not have, against pixels followed one by one."""

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
from assemble import look, mean_teacher, u2pl, with_teacher
from torch import Tensor, nn

from u2pl.methods import U2PL, Schedule
from u2pl.methods.extras.alignment import AlignPseudoLabels
from u2pl.methods.extras.denoising import DenoisePseudoLabels
from u2pl.methods.strong_views import MixedViews
from u2pl.pixels import (
    AdaptiveCopyPaste,
    AdaptiveCutMix,
    ClassConfidence,
    CutMix,
    DistributionAlignment,
    NegativeLearning,
    Prototypes,
    PrototypicalDenoising,
    Reliability,
    UnreliableContrast,
)
from u2pl.pixels.losses import SymmetricCrossEntropy
from u2pl.pixels.negative_keys import NegativeKeys
from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel

Network = Callable[..., nn.Module]
C, D, SIZE = 4, 3, 8


def random_batch(seed: int = 0, size: int = 2) -> Batch:
    torch.manual_seed(seed)
    label = torch.randint(0, C, (size, SIZE, SIZE)).masked_fill(torch.rand(size, SIZE, SIZE) < 0.2, IGNORE_INDEX)
    label[label == 3] = 0  # an absent class
    weak = 2 * torch.randn(size, 3, SIZE, SIZE)
    valid = torch.ones(size, SIZE, SIZE, dtype=torch.bool)
    valid[0, :, :2] = False
    return Batch(2 * torch.randn(size, 3, SIZE, SIZE), label, weak, weak + 0.1 * torch.rand_like(weak), valid)


def new_contrast(**options: Any) -> UnreliableContrast:
    sizes = {"anchors": 8, "negatives": 8, "bank_size": 64, "keys_per_step": 16, "min_probability": 0.2}
    return UnreliableContrast(C, D, negative_keys=NegativeKeys(1, 3), **{**sizes, **options})


def everything(network: nn.Module, **options: Any) -> U2PL:
    """U2PL with all of its parts."""
    prototypes = Prototypes(C, D)
    parts = {
        "contrast": new_contrast(prototypes=prototypes),
        "denoising": PrototypicalDenoising(prototypes),
        "alignment": DistributionAlignment(C),
        "negative_learning": NegativeLearning(NegativeKeys(1, 3)),
        "unsupervised_loss": SymmetricCrossEntropy(),
        "reliability": Reliability(class_wise=True),
    }
    return u2pl(network, **{**parts, **options})


def unsupervised(
    student: nn.Module, batch: Batch, p: Tensor, *, seed: int, class_wise: bool = False, reverse: float = 0.0
) -> float:
    """lambda_u L_u by the pseudo-labels that the probabilities (B, C, H, W) of weak images make."""
    places = list(product(range(len(p)), range(SIZE), range(SIZE)))
    label, entropy = p.argmax(dim=1), -(p.double() * p.double().log()).sum(dim=1)
    reliable = torch.zeros_like(batch.valid)
    for place in places:
        peers = batch.valid & (label == label[place]) if class_wise else batch.valid
        if batch.valid[place]:
            reliable[place] = bool(entropy[place] < np.quantile(entropy[peers].numpy(), 0.8) - 1e-9)
    torch.manual_seed(seed)
    keep = CutMix().draw(PseudoLabel.from_logits(p, batch.valid)).keep
    mixed, target, pixels = batch.strong.clone(), torch.full_like(label, IGNORE_INDEX), 0
    for b, y, x in places:
        source = b if keep[b, y, x] else (b + 1) % len(p)
        mixed[b, :, y, x] = batch.strong[source, :, y, x]
        pixels += int(batch.valid[source, y, x])
        if reliable[source, y, x]:
            target[b, y, x] = label[source, y, x]
    with torch.no_grad():
        probability = student(torch.cat((batch.image, mixed))).logits[len(batch.image) :].softmax(dim=1)
    losses = []
    for b, y, x in places:
        if target[b, y, x] != IGNORE_INDEX:
            right = probability[b, target[b, y, x], y, x].item()
            losses.append(-math.log(right) - reverse * math.log(1e-4) * (1 - right))
    return pixels / max(1, len(losses)) * sum(losses) / max(1, len(losses))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(("class_wise", "reverse"), [(True, 0.0), (False, 0.1), (True, 2.0)])
def test_class_wise_reliability_and_the_symmetric_loss(
    tiny_network: Network, seed: int, size: int, class_wise: bool, reverse: float
) -> None:
    student, teacher, batch = tiny_network(seed).eval(), tiny_network(seed + 50).eval(), random_batch(seed, size)
    loss = SymmetricCrossEntropy(reverse)
    parts = {"reliability": Reliability(class_wise=class_wise), "unsupervised_loss": loss}
    method = with_teacher(mean_teacher(student, **parts), teacher)
    torch.manual_seed(seed)
    value = method(student, batch, 0.0)["unsupervised"]
    p = teacher(batch.weak).logits.detach().softmax(dim=1)
    expected = unsupervised(student, batch, p, seed=seed, class_wise=class_wise, reverse=reverse)
    assert value.item() == pytest.approx(expected, rel=1e-3)


def aligned(p: Tensor, batch: Batch) -> Tensor:
    """Probabilities times the frequency of each class in the labels over that in the valid predictions."""
    labels = [value for value in batch.label.flatten().tolist() if value != IGNORE_INDEX]
    predicted = p.permute(0, 2, 3, 1)[batch.valid].mean(dim=0)
    for c in range(C):
        p = p.clone()
        p[:, c] *= min(10.0, max(0.1, labels.count(c) / len(labels) / predicted[c].item()))
    return p / p.sum(dim=1, keepdim=True)


def denoised(p: Tensor, embedding: Tensor, prototypes: Prototypes) -> Tensor:
    """Probabilities times the nearness of each prototype, interpolated from the resolution of the embedding."""
    near = torch.stack(
        [
            torch.exp(-(F.normalize(embedding, dim=1) - F.normalize(centre, dim=0).view(1, D, 1, 1)).norm(dim=1))
            for centre in prototypes.value
        ],
        dim=1,
    )
    weight = near / near.sum(dim=1, keepdim=True)
    p = p * F.interpolate(weight, size=p.shape[-2:], mode="bilinear", align_corners=True)
    return p / p.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize(("align", "denoise"), [(True, False), (False, True), (True, True)])
def test_pseudo_labels_are_aligned_and_denoised_before_the_partition(
    tiny_network: Network, passes: int, align: bool, denoise: bool
) -> None:
    student, teacher, batch = tiny_network(1).eval(), tiny_network(51).eval(), random_batch(1)
    prototypes = Prototypes(C, D)
    prototypes.update(5 * torch.randn(C, D), torch.full((C,), 2.0))
    before = copy.deepcopy(prototypes)  # those of the steps before: this one's come after its pseudo-labels
    parts = {
        "alignment": DistributionAlignment(C) if align else None,
        "denoising": PrototypicalDenoising(prototypes) if denoise else None,
    }
    method = u2pl(student, contrast=new_contrast(prototypes=prototypes), teacher_passes=passes, **parts)
    with_teacher(method, teacher)
    torch.manual_seed(4)
    value = method(student, batch, 0.0)["unsupervised"]
    view = teacher(batch.weak)
    plain = p = view.logits.detach().softmax(dim=1)
    p = aligned(p, batch) if align else p
    p = denoised(p, view.embedding.detach(), before) if denoise else p
    assert (p.argmax(dim=1) != plain.argmax(dim=1)).any()
    assert value.item() == pytest.approx(unsupervised(student, batch, p, seed=4), rel=1e-3)
    assert not torch.equal(prototypes.value, before.value)


@pytest.mark.parametrize("kind", ["alignment", "denoising"])
def test_pseudo_labels_alone_are_aligned_and_denoised(tiny_network: Network, kind: str) -> None:
    """Labeled images, coarse scores and so all keys stay as they are."""
    network, batch, prototypes = tiny_network().eval(), random_batch(), Prototypes(C, D)
    prototypes.update(5 * torch.randn(C, D), torch.full((C,), 2.0))
    refiner = {
        "alignment": AlignPseudoLabels(DistributionAlignment(C)),
        "denoising": DenoisePseudoLabels(PrototypicalDenoising(prototypes)),
    }[kind]
    refiner.observe(batch)
    output = network(torch.cat((batch.image, batch.weak)))
    refined = refiner(output, batch)
    assert torch.equal(refined.logits[:2], output.logits[:2])
    assert not torch.isclose(refined.logits[2:], output.logits[2:]).all()
    assert torch.equal(refined.coarse, output.coarse)
    mixed = MixedViews(batch.strong, PseudoLabel.from_logits(output.logits[2:]), [])
    assert refiner(output, batch, mixed) is output


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("contrast", [True, False])
def test_negative_learning(tiny_network: Network, seed: int, size: int, passes: int, contrast: bool) -> None:
    student = tiny_network(seed, projection=contrast).eval()
    teacher, batch = tiny_network(seed + 50, projection=contrast).eval(), random_batch(seed, size)
    method = u2pl(
        student,
        contrast=new_contrast() if contrast else None,
        negative_learning=NegativeLearning(NegativeKeys(2, 4)),
        teacher_passes=passes,
        reliability=Reliability(0.6),
    )
    with_teacher(method, teacher)
    torch.manual_seed(seed)
    views = look(method, batch, 0.0)
    torch.manual_seed(seed)
    losses = method(student, batch, 0.0)
    assert list(losses) == ["supervised", "unsupervised", *(["contrastive"] if contrast else []), "negative"]

    with torch.no_grad():
        keys = teacher(views.images[size:]).coarse
        if passes == 1:
            weak, small = teacher(batch.weak).coarse, views.mixed.mixes[0].keep[:, ::2, ::2].unsqueeze(1)
            keys = torch.where(small, weak, weak.roll(-1, dims=0))
        p = student(views.images).coarse[size:].softmax(dim=1)
    pairs = []
    for b, y, x in product(range(size), range(SIZE // 2), range(SIZE // 2)):
        if views.mixed.pseudo.unreliable[b, 2 * y, 2 * x]:
            order = keys[b, :, y, x].argsort(descending=True).tolist()
            pairs += [-math.log(1 - p[b, c, y, x].item()) for c in order[2:4]]
    assert losses["negative"].item() == pytest.approx(sum(pairs) / len(pairs), rel=1e-4)


def test_negative_learning_of_two_views_and_dropped_features(tiny_network: Network) -> None:
    """Unmixed images are not ranked: only mixed ones learn from negatives."""
    student, batch = tiny_network(1).eval(), random_batch(1)
    batch = replace(batch, strong_2=batch.strong - 0.3)
    method = mean_teacher(
        student, negative_learning=NegativeLearning(NegativeKeys(1, 4)), feature_dropout=True, teacher_passes=1
    )
    with_teacher(method, tiny_network(51))
    torch.manual_seed(2)
    views = look(method, batch, 0.0)
    torch.manual_seed(2)
    value = method(student, batch, 0.0)["negative"]
    keys = torch.cat([mix.apply(method.teacher(batch.weak).coarse) for mix in views.mixed.mixes])
    p = student(views.images[2:]).coarse.softmax(dim=1)
    unreliable = views.mixed.pseudo.unreliable[:, ::2, ::2].unsqueeze(1)
    unlikely = unreliable & (keys < keys.max(dim=1, keepdim=True).values)
    torch.testing.assert_close(value, -(1 - p[unlikely.expand_as(p)]).log().mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reliable", [0.0, 1.0])
def test_nothing_and_everything_unreliable(tiny_network: Network, reliable: float) -> None:
    student, batch = tiny_network(), random_batch()
    method = everything(student, reliability=Reliability(1 - reliable, min_confidence=0.0 if reliable else 2.0))
    losses = method(student, batch, 0.0)
    assert all(loss.isfinite() for loss in losses.values())
    assert (losses["unsupervised"].item() > 0) == bool(reliable)
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in student.parameters())


@pytest.mark.parametrize("size", [1, 2])
def test_without_a_valid_or_labeled_pixel_all_terms_are_zero(tiny_network: Network, size: int) -> None:
    student, batch = tiny_network(), random_batch(size=size)
    batch.valid[:], batch.label[:] = False, IGNORE_INDEX
    losses = everything(student)(student, batch, 0.0)
    assert [loss.item() for loss in losses.values()] == [0.0] * 4
    sum(losses.values()).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in student.parameters())


def test_labels_are_counted_in_the_warm_up_and_as_they_were_drawn(tiny_network: Network) -> None:
    """Classes that copy-paste repeats are no more frequent for it."""
    student, batch = tiny_network(), random_batch(3)
    confidence = ClassConfidence(C)
    copy_paste = AdaptiveCopyPaste(confidence, number=1, probability=1.0)
    alignment = DistributionAlignment(C)
    options = {"copy_paste": copy_paste, "mixing": AdaptiveCutMix(confidence), "schedule": Schedule(warmup=0.5)}
    method = everything(student, alignment=alignment, **options)
    assert list(method(student, batch, 0.2)) == ["supervised", "contrastive"]
    labels = [value for value in batch.label.flatten().tolist() if value != IGNORE_INDEX]
    assert alignment.labeled.tolist() == pytest.approx([labels.count(c) / len(labels) for c in range(C)])
    assert alignment.steps.tolist() == [1, 0]
    method(student, batch, 0.5)
    assert alignment.steps.tolist() == [2, 1]


def test_a_mean_teacher_takes_what_needs_no_contrast(tiny_network: Network) -> None:
    student = tiny_network(projection=False)
    parts = {"alignment": DistributionAlignment(C), "negative_learning": NegativeLearning(NegativeKeys(1, 3))}
    method = mean_teacher(student, unsupervised_loss=SymmetricCrossEntropy(), teacher_passes=1, **parts)
    losses = method.train()(student, random_batch(), 0.0)
    assert list(losses) == ["supervised", "unsupervised", "negative"]
    assert method.teacher.network.calls == [(False, 4)]  # one pass


def test_all_options_are_saved_and_go_on(tiny_network: Network) -> None:
    student, batch = tiny_network(), random_batch()
    method = everything(student)
    for _ in range(3):
        method(student, batch, 0.3)
        method.after_step(student)
    restored = everything(tiny_network(7))
    restored.load_state_dict(method.state_dict())
    assert method.contrast.prototypes.known.any()
    results = []
    for one, network in ((method, student), (restored, copy.deepcopy(student))):
        torch.manual_seed(9)
        results.append([loss.item() for loss in one(network, batch, 0.4).values()])
    assert results[0] == results[1]
    for name, value in restored.state_dict().items():
        same = method.state_dict()[name]
        assert torch.equal(value, same) if isinstance(value, Tensor) else value == same, name


def test_a_diagnosis_sees_the_pseudo_labels_that_train(tiny_network: Network) -> None:
    student, batch = tiny_network(1), random_batch(1)
    batch = replace(batch, truth=torch.randint(0, C, batch.valid.shape))
    alignment = DistributionAlignment(C)
    method = with_teacher(everything(student, alignment=alignment), tiny_network(51))
    alignment.observe(torch.full((1, 2, 2), 2))  # only class 2 is ever labeled
    for _ in range(200):
        alignment.observe(torch.full((1, 2, 2), 2))
    counts = method.diagnose(student, replace(batch, label=torch.full_like(batch.label, 2)), 0.0)
    share = counts["reliable/share"][1]
    assert share[2] > 0.8 * share.sum()
    alignment = DistributionAlignment(C)
    with_teacher(everything(student, alignment=alignment), tiny_network(51)).diagnose(student, batch, 0.0)
    assert alignment.steps.tolist() == [1, 1]  # it counts the labels of the batch, as a step does


@pytest.mark.parametrize("passes", [1, 2])
def test_the_teacher_knows_what_images_like_an_unlabeled_one_show(tiny_network: Network, passes: int) -> None:
    """Probabilities of pixels times those of their image, in pseudo-labels and, mixed alike, in the keys' ranks."""
    student, batch = tiny_network(), random_batch()
    prior = torch.tensor([[0.0, -1.0, -2.0, 0.0], [0.0, -3.0, 0.0, -0.5]])
    method = with_teacher(
        u2pl(student, contrast=new_contrast(), schedule=Schedule(), teacher_passes=passes), tiny_network(5)
    )
    plain = method.teacher(batch.weak)
    batch = replace(batch, prior=prior)
    torch.manual_seed(1)
    views = look(method, batch, 0.3)
    for b, y, x in product(range(2), range(SIZE), range(SIZE)):
        told = [math.exp(plain.logits[b, c, y, x].item() + prior[b, c].item()) for c in range(C)]
        assert views.pseudo.label[b, y, x].item() == max(range(C), key=told.__getitem__)
        assert views.pseudo.confidence[b, y, x].item() == pytest.approx(max(told) / sum(told), abs=1e-5)
    if passes == 1:
        labeled = method.teacher(batch.image).coarse
        informed = views.mixed.mixes[0].apply(plain.coarse + prior[:, :, None, None])
        coarse = torch.cat((labeled, informed))  # labels are known: no prior
    else:
        coarse = method.teacher(views.images).coarse  # mixed images have none
    torch.testing.assert_close(views.keys.probability, coarse.softmax(dim=1))
    assert all(loss.isfinite() for loss in method(student, batch, 0.3).values())


def test_without_a_prior_nothing_changes(tiny_network: Network) -> None:
    student, batch = tiny_network(), random_batch()
    results = []
    for prior in (None, torch.zeros(2, C)):
        method = with_teacher(
            u2pl(student, contrast=new_contrast(), schedule=Schedule(), teacher_passes=1), tiny_network(5)
        )
        torch.manual_seed(1)
        results.append([loss.item() for loss in method(student, replace(batch, prior=prior), 0.3).values()])
    assert results[0] == results[1]


@pytest.mark.parametrize("passes", [1, 2])
def test_a_teacher_of_balanced_losses_is_asked_what_is_likely(tiny_network: Network, passes: int) -> None:
    """Its probabilities over the weights of classes, in pseudo-labels and in the ranks of all keys."""
    student, batch, weight = tiny_network(), random_batch(), [1.0, 4.0, 0.5, 20.0]
    options = {"schedule": Schedule(), "teacher_passes": passes, "class_weight": torch.tensor(weight)}
    method = with_teacher(u2pl(student, contrast=new_contrast(), **options), tiny_network(5))
    plain = method.teacher(batch.weak)
    torch.manual_seed(1)
    views = look(method, batch, 0.3)
    changed = 0
    for b, y, x in product(range(2), range(SIZE), range(SIZE)):
        likely = [math.exp(plain.logits[b, c, y, x].item()) / weight[c] for c in range(C)]
        assert views.pseudo.label[b, y, x].item() == max(range(C), key=likely.__getitem__)
        assert views.pseudo.confidence[b, y, x].item() == pytest.approx(max(likely) / sum(likely), abs=1e-5)
        changed += views.pseudo.label[b, y, x].item() != plain.logits[b, :, y, x].argmax().item()
    assert changed
    mixed = views.mixed.mixes[0].apply(plain.coarse) if passes == 1 else method.teacher(views.mixed.image).coarse
    coarse = torch.cat((method.teacher(batch.image).coarse, mixed))
    shift = -torch.tensor(weight).log().view(1, C, 1, 1)
    torch.testing.assert_close(views.keys.probability, (coarse + shift).softmax(dim=1))
    assert all(loss.isfinite() for loss in method(student, batch, 0.3).values())
    assert not any("shift" in name for name in method.state_dict())  # a run from before goes on


def test_weights_that_are_alike_change_nothing(tiny_network: Network) -> None:
    student, batch = tiny_network(), random_batch()
    results = []
    for weight in (None, torch.full((C,), 50.0)):
        options = {"schedule": Schedule(), "teacher_passes": 1, "class_weight": weight}
        method = with_teacher(u2pl(student, contrast=new_contrast(), **options), tiny_network(5))
        torch.manual_seed(1)
        results.append(torch.stack(list(method(student, batch, 0.3).values())))
    torch.testing.assert_close(results[0], results[1])


def test_a_diagnosis_compares_what_student_and_teacher_say_themselves(tiny_network: Network) -> None:
    """A teacher that is its student agrees with it wherever it is asked; of another one, no refinement counts."""
    student, batch = tiny_network().eval(), random_batch()
    prior = torch.tensor([[0.0, -1.0, -2.0, 0.0], [0.0, -3.0, 0.0, -0.5]])
    batch = replace(batch, truth=torch.randint(0, C, batch.valid.shape), prior=prior)
    weight = torch.tensor([1.0, 4.0, 0.5, 20.0])
    method = with_teacher(mean_teacher(student, class_weight=weight), student)
    agree, asked = method.diagnose(student, batch, 0.3)["agreement"].tolist()
    assert agree == asked > 0

    method = with_teacher(mean_teacher(student, class_weight=weight), tiny_network(5))
    own, other = student(batch.weak).logits, method.teacher(batch.weak).logits
    same = sum(
        int(own[b, :, y, x].argmax() == other[b, :, y, x].argmax()) for b, y, x in batch.valid.nonzero().tolist()
    )
    assert method.diagnose(student, batch, 0.3)["agreement"].tolist() == [same, asked]
    assert 0 < same < asked
