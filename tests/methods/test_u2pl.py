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
from assemble import mean_teacher, u2pl
from torch import Tensor, nn

from u2pl.methods import U2PL, Schedule
from u2pl.methods.strong_views import MixedViews
from u2pl.methods.weighting import LambdaU
from u2pl.pixels import (
    AdaptiveCopyPaste,
    AdaptiveCutMix,
    ClassConfidence,
    ClassMix,
    CutMix,
    CutOut,
    Reliability,
    UnreliableContrast,
    partition,
)
from u2pl.pixels.losses import OhemCrossEntropy
from u2pl.pixels.negative_keys import NegativeKeys
from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel

Network = Callable[..., nn.Module]
C, SIZE = 4, 8
M = 2 * 4 * 16  # every set of a step is smaller


def random_batch(seed: int = 0, size: int = 2) -> Batch:
    torch.manual_seed(seed)
    label = torch.randint(0, C, (size, SIZE, SIZE))
    label[:, :1] = IGNORE_INDEX
    weak = 2 * torch.randn(size, 3, SIZE, SIZE)
    valid = torch.ones(size, SIZE, SIZE, dtype=torch.bool)
    valid[0, :, :2] = False
    strong = weak + 0.1 * torch.rand_like(weak)
    return Batch(2 * torch.randn(size, 3, SIZE, SIZE), label, weak, strong, valid)


def new_contrast(**negative_keys: Any) -> UnreliableContrast:
    sizes = {"anchors": M, "negatives": M, "bank_size": 2 * M, "keys_per_step": M, "min_probability": 0.4}
    return UnreliableContrast(C, 3, negative_keys=NegativeKeys(1, 3, **negative_keys), **sizes)


def build(network: nn.Module, **options: Any) -> U2PL:
    """A method by the options of its parts, all by name."""
    parts = {"reliability": Reliability, "schedule": Schedule, "weighting": LambdaU}
    for name, part in parts.items():
        own = {key: options.pop(key) for key in part.__dataclass_fields__ if key in options}
        options[name] = part(**own)
    return u2pl(network, **{"contrast": new_contrast(), **options})


def crops(step: dict[str, Tensor], name: str) -> Tensor:
    """(P, K): a tensor of the embedding's resolution, pixel by pixel."""
    return step[name].permute(0, 2, 3, 1).flatten(0, 2)


def loop_contrast(views: dict[str, Tensor], sets: dict[str, list[int]]) -> list[float]:
    """The loss of each class that has anchors and negatives; every set is gone through in turn."""
    z, key, q = (crops(views, name) for name in ("z", "key", "p"))
    per_class = []
    for c in range(C):
        rank = [int((row > row[c]).sum()) for row in q]
        anchors = [i for i in range(len(q)) if sets["target"][i] == c and q[i, c] > 0.4]
        negatives = [
            i
            for i in range(len(q))
            if (sets["label"][i] not in (IGNORE_INDEX, c) and rank[i] < 1)
            or (sets["unreliable"][i] and 1 <= rank[i] < 3)
        ]
        if not anchors or not negatives:
            continue
        centre = key[anchors].mean(dim=0)
        drawn = [negatives[k % len(negatives)] for k in range(M)]
        total = 0.0
        for k in range(M):
            anchor = z[anchors[k % len(anchors)]]
            positive = F.cosine_similarity(anchor, centre, dim=0) / 0.5
            others = F.cosine_similarity(anchor.unsqueeze(0), key[drawn], dim=1) / 0.5
            total += (torch.cat((positive.view(1), others)).logsumexp(dim=0) - positive).item()
        per_class.append(total / M)
    return per_class


def loop_step(student: nn.Module, teacher: nn.Module, batch: Batch, keep: Tensor, **o: Any) -> dict[str, float]:
    """Algorithm 1, pixel by pixel. ``keep`` is the mask of CutMix, False where the next image shows."""
    assert batch.weak is not None
    assert batch.strong is not None
    assert batch.valid is not None
    with torch.no_grad():
        weak_view = teacher(batch.weak)
        p = weak_view.logits.softmax(dim=1)
        places = list(product(range(len(batch.weak)), range(SIZE), range(SIZE)))
        entropy = {
            (b, y, x): -sum(value * math.log(value) for value in p[b, :, y, x].double().tolist()) for b, y, x in places
        }
        gamma = np.quantile([entropy[place] for place in places if batch.valid[place]], 1 - o["alpha"])
        mixed, target = batch.strong.clone(), torch.full(keep.shape, IGNORE_INDEX)
        unreliable, pixels = torch.zeros_like(keep), 0
        for b, y, x in places:
            source = b if keep[b, y, x] else (b + 1) % len(batch.weak)
            mixed[b, :, y, x] = batch.strong[source, :, y, x]
            if not batch.valid[source, y, x]:
                continue
            pixels += 1
            sure = p[source, :, y, x].max() >= o.get("floor", 0.0)
            if entropy[source, y, x] < gamma and sure:
                target[b, y, x] = p[source, :, y, x].argmax()
            else:
                unreliable[b, y, x] = True
        images = torch.cat((batch.image, mixed))
        output = student(images)

        def mean_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[float, int]:
            values = [
                -logits[b, :, y, x].log_softmax(dim=0)[labels[b, y, x]].item()
                for b, y, x in places
                if labels[b, y, x] != IGNORE_INDEX
            ]
            return sum(values) / max(1, len(values)), len(values)

        supervised, _ = mean_cross_entropy(output.logits[: len(batch.image)], batch.label)
        unsupervised, reliable = mean_cross_entropy(output.logits[len(batch.image) :], target)
        losses = {
            "supervised": supervised,
            "unsupervised": min(pixels / max(1, reliable), o.get("most", math.inf)) * o.get("ramp", 1.0) * unsupervised,
        }
        if output.embedding is None:
            return losses

        if o["passes"] == 2:
            keys = teacher(images)
            coarse, embedding = keys.coarse, keys.embedding
        else:
            own = teacher(batch.image)
            small = keep[:, ::2, ::2].unsqueeze(1)
            mix = lambda tensor: torch.where(small, tensor, tensor.roll(-1, dims=0))  # noqa: E731
            coarse = torch.cat((own.coarse, mix(weak_view.coarse)))
            embedding = torch.cat((own.embedding, mix(weak_view.embedding)))
        half = slice(None, None, 2)
        nothing = torch.full_like(target, IGNORE_INDEX)
        sets = {
            "target": torch.cat((batch.label, target))[:, half, half].flatten().tolist(),
            "label": torch.cat((batch.label, nothing))[:, half, half].flatten().tolist(),
            "unreliable": torch.cat((torch.zeros_like(unreliable), unreliable))[:, half, half].flatten().tolist(),
        }
        views = {"z": output.embedding, "key": embedding, "p": coarse.softmax(dim=1)}
        per_class = loop_contrast(views, sets)
        losses["contrastive"] = sum(per_class) / max(1, len(per_class))
        losses["classes"] = len(per_class)
        return losses


def run_both(
    tiny_network: Network,
    batch: Batch,
    progress: float,
    seed: int = 0,
    network: dict[str, bool] | None = None,
    **o: Any,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The losses of the method and of the loop, for a teacher that is not the student."""
    student = tiny_network(seed).eval()  # so that the loop may run it again
    method = build(student, **o)
    method.teacher.started = True
    method.teacher.network.load_state_dict(tiny_network(seed + 50).state_dict())
    torch.manual_seed(seed)
    losses = method(student, batch, progress)
    torch.manual_seed(seed)
    assert batch.weak is not None
    pseudo = PseudoLabel.from_logits(method.teacher(batch.weak).logits, batch.valid)
    keep = (o.get("mixing") or CutMix()).draw(pseudo).keep
    warmup, ramp = o.get("warmup", 0.0), o.get("ramp", 0.0)
    expected = loop_step(
        student,
        method.teacher.network,
        batch,
        keep,
        alpha=o.get("alpha", 0.2) * (1 - progress),
        passes=o.get("teacher_passes", 2),
        floor=o.get("min_confidence", 0.0),
        most=o.get("maximum", math.inf),
        ramp=min(1.0, (progress - warmup) / ramp) if ramp else 1.0,
    )
    return losses, expected


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("progress", [0.0, 0.6])
def test_a_step_of_algorithm_one(tiny_network: Network, seed: int, passes: int, progress: float) -> None:
    losses, expected = run_both(tiny_network, random_batch(seed), progress, seed, teacher_passes=passes, alpha=0.5)
    assert list(losses) == ["supervised", "unsupervised", "contrastive"]
    assert expected.pop("classes") >= 2
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"mixing": ClassMix(C)},
        {"min_confidence": 0.6},
        {"min_confidence": 0.6, "maximum": 1.5},
        {"warmup": 0.1, "ramp": 0.5},
        {"warmup": 0.1, "ramp": 0.2},
    ],
)
def test_options_of_a_step(tiny_network: Network, options: dict[str, Any]) -> None:
    losses, expected = run_both(tiny_network, random_batch(1), 0.35, 1, **options)
    expected.pop("classes")
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("dropout", [False, True])
def test_two_views_are_a_batch_of_twice_the_images(tiny_network: Network, passes: int, dropout: bool) -> None:
    """Each view has its own mask; every term is that of both views in one batch."""
    student, batch = tiny_network(1).eval(), random_batch(1)
    assert batch.strong is not None
    assert batch.weak is not None
    batch = replace(batch, strong_2=batch.strong - 0.3)
    method = build(student, teacher_passes=passes, feature_dropout=dropout)
    method.teacher.network.load_state_dict(tiny_network(51).state_dict())
    method.teacher.started = True
    torch.manual_seed(3)
    losses = method(student, batch, 0.2)

    torch.manual_seed(3)
    weak_view = method.teacher(batch.weak)
    pseudo = partition(PseudoLabel.from_logits(weak_view.logits, batch.valid), alpha=0.2 * 0.8)
    mixes = [CutMix().draw(pseudo) for _ in range(2)]
    mixed = torch.cat([mixes[0].apply(batch.strong), mixes[1].apply(batch.strong_2)])
    parts = [mix.pseudo_label(pseudo) for mix in mixes]
    target = torch.cat([part.target() for part in parts])
    output = student(torch.cat((batch.image, mixed)))
    lambda_u = sum(part.valid.sum() for part in parts) / sum(part.reliable.sum() for part in parts)
    expected = lambda_u * F.cross_entropy(output.logits[2:], target, ignore_index=IGNORE_INDEX)
    if dropout:
        perturbed = student(batch.weak, dropped=2).logits[2:]
        weight = pseudo.valid.sum() / pseudo.reliable.sum()
        other = weight * F.cross_entropy(perturbed, pseudo.target(), ignore_index=IGNORE_INDEX)
        expected = (expected + other) / 2
    assert losses["unsupervised"].item() == pytest.approx(expected.item(), rel=1e-4)

    keys = method.teacher(torch.cat((batch.image, mixed)))
    coarse, embedding = keys.coarse, keys.embedding
    if passes == 1:
        own = method.teacher(batch.image)
        coarse = torch.cat((own.coarse, *(mix.apply(weak_view.coarse) for mix in mixes)))
        embedding = torch.cat((own.embedding, *(mix.apply(weak_view.embedding) for mix in mixes)))
    unreliable = torch.cat((torch.zeros_like(batch.label, dtype=torch.bool), *(part.unreliable for part in parts)))
    half = slice(None, None, 2)
    sets = {
        "target": torch.cat((batch.label, target))[:, half, half].flatten().tolist(),
        "label": torch.cat((batch.label, torch.full_like(target, IGNORE_INDEX)))[:, half, half].flatten().tolist(),
        "unreliable": unreliable[:, half, half].flatten().tolist(),
    }
    views = {"z": output.embedding.detach(), "key": embedding, "p": coarse.softmax(dim=1)}
    per_class = loop_contrast(views, sets)
    assert len(per_class) >= 2
    assert losses["contrastive"].item() == pytest.approx(sum(per_class) / len(per_class), rel=1e-3)


@pytest.mark.parametrize("chosen", ["reliable", "all"])
def test_negatives_of_another_kind_reach_the_bank(tiny_network: Network, chosen: Any) -> None:
    fills = []
    for source in ("unreliable", chosen):
        student = tiny_network(1)
        method = build(student, contrast=new_contrast(pixels=source))
        torch.manual_seed(0)
        method(student, random_batch(1), 0.0)
        fills.append(method.contrast.bank.fill.sum().item())
    assert fills[1] > fills[0]


def test_without_dynamic_partition_the_share_stays(tiny_network: Network) -> None:
    assert build(tiny_network(), alpha=0.4).reliability.alpha_t(0.75) == pytest.approx(0.1)
    assert build(tiny_network(), alpha=0.4, dynamic=False).reliability.alpha_t(0.75) == 0.4


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_copy_paste_changes_labeled_images_and_follows_their_confidence(tiny_network: Network, progress: float) -> None:
    """Of AEL: a step, warm-up or not, sees the pasted images, and the running confidence is that of their pixels."""
    confidence = ClassConfidence(C)
    copy_paste = AdaptiveCopyPaste(confidence, number=C, probability=1.0)  # all of the next image is pasted
    student, batch = tiny_network(1).eval(), random_batch(1)
    method = build(student, warmup=0.3, copy_paste=copy_paste, mixing=AdaptiveCutMix(confidence))
    losses = method(student, batch, progress)
    void = (batch.label == IGNORE_INDEX).roll(-1, dims=0)
    label = torch.where(void, batch.label, batch.label.roll(-1, dims=0))
    image = torch.where(void.unsqueeze(1), batch.image, batch.image.roll(-1, dims=0))
    logits = student(image).logits
    expected = F.cross_entropy(logits, label, ignore_index=IGNORE_INDEX)
    assert losses["supervised"].item() == pytest.approx(expected.item(), rel=1e-5)
    probability = logits.softmax(dim=1)
    for c in range(C):
        assert confidence.value[c].item() == pytest.approx(probability[:, c][label == c].mean().item(), rel=1e-5)
    assert "mix.class_confidence.value" in method.state_dict()


def test_a_batch_of_one(tiny_network: Network) -> None:
    losses, expected = run_both(tiny_network, random_batch(2, size=1), 0.0, 2)
    expected.pop("classes")
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("seed", range(2))
def test_mean_teacher_is_u2pl_without_the_contrast(tiny_network: Network, seed: int) -> None:
    _, expected = run_both(tiny_network, random_batch(seed), 0.3, seed)
    student = tiny_network(seed).eval()
    method = mean_teacher(student)
    method.teacher.started = True
    method.teacher.network.load_state_dict(tiny_network(seed + 50).state_dict())
    torch.manual_seed(seed)
    losses = method(student, random_batch_after_seed(seed), 0.3)
    assert list(losses) == ["supervised", "unsupervised"]
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name], rel=1e-3)
    method = mean_teacher(tiny_network(projection=False), teacher_passes=1)
    assert list(method(tiny_network(projection=False), random_batch(), 0.0)) == ["supervised", "unsupervised"]
    assert method.teacher.network.calls == [(False, 2)]  # nobody asks what it says of labeled images


def random_batch_after_seed(seed: int) -> Batch:
    state = torch.get_rng_state()
    batch = random_batch(seed)
    torch.set_rng_state(state)
    return batch


@pytest.mark.parametrize(("passes", "expected"), [(2, [(False, 2), (False, 4)]), (1, [(False, 4)])])
def test_passes_of_the_teacher(tiny_network: Network, passes: int, expected: list[tuple[bool, int]]) -> None:
    student = tiny_network()
    method = build(student, teacher_passes=passes).train()
    method(student, random_batch(), 0.0)
    assert method.teacher.network.calls == expected
    assert student.calls == [(True, 4)]


def test_padding_and_no_reliable_pixel_are_zero_not_nan(tiny_network: Network) -> None:
    batch = random_batch()
    assert batch.valid is not None
    for options in ({"min_confidence": 2.0}, {"alpha": 1.0}):
        losses = build(tiny_network(), **options)(tiny_network(), batch, 0.0)
        assert losses["unsupervised"].item() == 0
        assert losses["contrastive"].isfinite()
    batch.valid[:] = False
    student = tiny_network()
    method = build(student)
    losses = method(student, batch, 0.0)
    assert losses["unsupervised"].item() == 0
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in student.parameters())


def test_erased_pixels_neither_train_nor_count(tiny_network: Network) -> None:
    student = tiny_network().eval()
    batch = random_batch(0)
    method = mean_teacher(student, mixing=CutOut(area=1.0))
    assert method(student, batch, 0.0)["unsupervised"].item() == 0


def test_warm_up_is_supervised_only_and_then_copies_the_student_once(tiny_network: Network) -> None:
    student = tiny_network(auxiliary=True)
    method = build(student, warmup=0.25)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    batch = random_batch()
    for step in range(2):
        losses = method(student, batch, step / 8)
        assert list(losses) == ["supervised", "auxiliary", "contrastive"]
        assert losses["contrastive"].item() == 0
        optimizer.zero_grad()
        sum(losses.values()).backward()
        assert all(parameter.grad is not None for parameter in student.parameters())
        assert not any(parameter.grad.any() for parameter in student.projection.parameters())
        optimizer.step()
        method.after_step(student)
        assert list(method.candidates(student)) == ["student"]
    assert method.teacher.updates == 0
    assert not method.teacher.network.calls
    assert not torch.equal(method.teacher.network.classifier.weight, student.classifier.weight)
    assert method.contrast.bank.fill.sum() == 0

    losses = method(student, batch, 0.25)
    assert list(losses) == ["supervised", "auxiliary", "unsupervised", "contrastive"]
    torch.testing.assert_close(method.teacher.network.classifier.weight, student.classifier.weight)
    assert method.candidates(student) == {"student": student, "teacher": method.teacher.network}
    assert list(method.candidates(student))[-1] == "teacher"
    method.after_step(student)
    assert method.teacher.updates == 1
    copied = method.teacher.network.classifier.weight.clone()
    with torch.no_grad():
        student.classifier.weight.add_(1)
    method(student, batch, 0.5)
    assert torch.equal(method.teacher.network.classifier.weight, copied)


def test_every_parameter_has_a_gradient_and_the_teacher_has_none(tiny_network: Network) -> None:
    student = tiny_network(auxiliary=True)
    method = build(student)
    sum(method(student, random_batch(), 0.0).values()).backward()
    assert all(parameter.grad.any() for parameter in student.projection.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in method.parameters())


def test_the_share_of_unreliable_pixels_falls_with_progress(tiny_network: Network) -> None:
    student = tiny_network()
    method = build(student, alpha=0.4)
    shares = []

    def watch(mix: nn.Module, arguments: Any, mixed: MixedViews) -> None:
        shares.append(mixed.pseudo.unreliable.float().mean().item())

    method.mix.register_forward_hook(watch)
    batch = copy.deepcopy(random_batch(size=1))  # alone in its batch, a crop is mixed with itself
    batch.valid[:] = True
    for progress in (0.0, 0.5, 0.9):
        method(student, batch, progress)
    assert shares == pytest.approx([0.4, 0.2, 0.04], abs=0.03)


def test_the_supervised_loss_is_a_choice(tiny_network: Network) -> None:
    student, batch = tiny_network().eval(), random_batch()
    ohem = OhemCrossEntropy(0.3, min_kept=3)
    for progress in (0.0, 0.5):
        loss = build(student, supervised_loss=ohem, warmup=0.3)(student, batch, progress)["supervised"]
        assert loss.item() == pytest.approx(ohem(student(batch.image).logits, batch.label).item(), rel=1e-5)


def test_a_batch_without_unlabeled_images(tiny_network: Network) -> None:
    student, batch = tiny_network(), random_batch()
    labeled = Batch(batch.image, batch.label)
    method = build(student, warmup=0.5)
    assert method.semi_supervised
    assert "supervised" in method(student, labeled, 0.0)
    with pytest.raises(ValueError, match="unlabeled"):
        method(student, labeled, 0.5)


def test_a_restored_run_goes_on_as_the_one_that_was_saved(tiny_network: Network) -> None:
    student, batch = tiny_network(), random_batch()
    method = build(student, warmup=0.1)
    for _ in range(2):
        method(student, batch, 0.3)
        method.after_step(student)
        with torch.no_grad():
            student.classifier.weight.mul_(1.1)
    restored = build(tiny_network(7), warmup=0.1)
    restored.load_state_dict(method.state_dict())
    assert restored.teacher.started
    assert restored.teacher.updates == 2
    twin = copy.deepcopy(student)
    results = []
    for one, network in ((method, student), (restored, twin)):
        torch.manual_seed(9)
        losses = one(network, batch, 0.4)
        one.after_step(network)
        results.append([loss.item() for loss in losses.values()])
    assert results[0] == results[1]
    for name, value in restored.teacher.network.state_dict().items():
        assert torch.equal(value, method.teacher.network.state_dict()[name])
