"""Masked image consistency against pixels followed one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from assemble import mean_teacher, parts, u2pl, with_teacher
from torch import Tensor, nn

from u2pl.build import build_method
from u2pl.config.overrides import load_config
from u2pl.data.photometric import Photometric
from u2pl.errors import InputError
from u2pl.methods import METHODS, Schedule, UniMatchV2
from u2pl.methods.extras.masked_consistency import MaskedConsistencyLoss
from u2pl.networks.normalization import IMAGENET_MEAN
from u2pl.pixels import UnreliableContrast
from u2pl.pixels.jitter import jittered
from u2pl.pixels.masking import visible_patches
from u2pl.pixels.negative_keys import NegativeKeys
from u2pl.structures import IGNORE_INDEX, Batch, Jitter, PseudoLabel

Network = Callable[..., nn.Module]
C, D, SIZE = 4, 3, 8


def random_batch(seed: int = 0, size: int = 2) -> Batch:
    torch.manual_seed(seed)
    weak = torch.rand(size, 3, SIZE, SIZE)
    valid = torch.ones(size, SIZE, SIZE, dtype=torch.bool)
    valid[0, :, :3] = False
    label = torch.randint(0, C, (size, SIZE, SIZE))
    return Batch(torch.rand(size, 3, SIZE, SIZE), label, weak, weak**0.8, valid)


def loop_loss(logits: Tensor, confidence: Tensor, label: Tensor, valid: Tensor, threshold: float) -> float:
    """The mean cross-entropy over valid pixels, times the share of them that is confident."""
    losses, confident = [], 0
    for b, y, x in product(*map(range, label.shape)):
        if valid[b, y, x]:
            scores = [math.exp(value) for value in logits[b, :, y, x].tolist()]
            losses.append(-math.log(scores[int(label[b, y, x])] / sum(scores)))
            confident += confidence[b, y, x].item() >= threshold
    return 0.0 if not losses else confident / len(losses) * sum(losses) / len(losses)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.6, 1.0])
def test_the_loss_is_that_of_a_loop(seed: int, size: int, threshold: float) -> None:
    torch.manual_seed(seed)
    pseudo = PseudoLabel.from_logits(2 * torch.randn(size, C, 5, 7), torch.rand(size, 5, 7) < 0.7)
    logits = torch.randn(size, C, 5, 7)
    # What a method thinks is reliable does not count.
    pseudo = replace(pseudo, reliable=torch.zeros_like(pseudo.valid), unreliable=pseudo.valid)
    loss = MaskedConsistencyLoss(threshold=threshold).loss(logits, pseudo)
    expected = loop_loss(logits, pseudo.confidence, pseudo.label, pseudo.valid, threshold)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert (expected == 0) == (threshold == 1.0)


def test_nothing_confident_or_nothing_valid_is_zero() -> None:
    logits = torch.randn(1, C, 4, 4, requires_grad=True)
    flat, nowhere = PseudoLabel.from_logits(torch.zeros(1, C, 4, 4)), torch.zeros(1, 4, 4, dtype=torch.bool)
    sure = PseudoLabel.from_logits(torch.tensor([50.0, 0, 0, 0]).view(1, C, 1, 1).expand(1, C, 4, 4))
    part = MaskedConsistencyLoss()
    for pseudo in (flat, replace(sure, valid=nowhere)):
        loss = part.loss(logits, pseudo)
        assert loss.item() == 0
        assert torch.autograd.grad(loss, logits)[0].abs().max() == 0
    everything = part.loss(logits, sure)  # then it is the plain cross-entropy
    assert everything.item() == pytest.approx(-logits.log_softmax(dim=1)[:, 0].mean().item(), rel=1e-6)


@pytest.mark.parametrize("average", [lambda x: x / 2, lambda x: 3 * x])
def test_counts_are_averaged_over_processes(average: Any) -> None:
    """Twice as many pixels elsewhere halve a pixel's part, and the confident share is that of all."""
    torch.manual_seed(0)
    pseudo, logits = PseudoLabel.from_logits(torch.randn(2, C, 4, 4)), torch.randn(2, C, 4, 4)
    alone, shared = (MaskedConsistencyLoss(threshold=0.5, average=how).loss(logits, pseudo) for how in (None, average))
    pixels = torch.tensor(float(pseudo.valid.sum()))
    assert shared.item() == pytest.approx((alone * pixels / average(pixels)).item(), rel=1e-5)


@pytest.mark.parametrize("jitter", [None, Photometric()])
@pytest.mark.parametrize("size", [1, 2])
def test_hidden_pixels_have_the_mean_colour(size: int, jitter: Photometric | None) -> None:
    torch.manual_seed(3)
    image = torch.rand(size, 3, 9, 12)
    part = MaskedConsistencyLoss(patch=0.4, ratio=0.5, jitter=jitter)  # patches of 4: 3.6 rounded
    torch.manual_seed(5)
    masked = part.masked(image)
    torch.manual_seed(5)
    if jitter is not None:
        image = jittered(image, Jitter(jitter.draw(size).values))
    visible = visible_patches(size, 9, 12, side=4, ratio=0.5, device=image.device)
    assert 0 < visible.float().mean() < 1
    for b, y, x in product(range(size), range(9), range(12)):
        expected = image[b, :, y, x] if visible[b, y, x] else torch.tensor(IMAGENET_MEAN)
        assert torch.equal(masked[b, :, y, x], expected)


def new_parts(network: nn.Module, **options: Any) -> dict[str, Any]:
    """Arguments of U2PL with masked consistency as its last loss, on networks that are not sure of much."""
    built = parts(network, schedule=Schedule(), **options)
    built["further_losses"] = [*built["further_losses"], MaskedConsistencyLoss(patch=0.25, threshold=0.3)]
    return built


def new_contrast() -> UnreliableContrast:
    sizes = {"anchors": 8, "negatives": 8, "bank_size": 64, "keys_per_step": 16, "min_probability": 0.2}
    return UnreliableContrast(C, D, negative_keys=NegativeKeys(1, 3), **sizes)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_step_adds_one_loss_and_changes_no_other(tiny_network: Network, size: int, passes: int) -> None:
    student, other, batch = tiny_network(), tiny_network(5), random_batch(1, size)
    losses = []
    for masked in (False, True):
        options = new_parts(student, teacher_passes=passes)
        options["further_losses"] = options["further_losses"] if masked else []
        method = with_teacher(METHODS["u2pl"](contrast=new_contrast(), **options), other)
        student.calls.clear()
        method.teacher.network.calls.clear()
        torch.manual_seed(2)
        losses.append(method(student, batch, 0.5))
        assert student.calls == [(True, 2 * size), (True, size)][: 1 + masked]
        assert len(method.teacher.network.calls) == passes  # no further pass of the teacher
    without, both = losses
    assert both.keys() - without.keys() == {"masked"}
    for name, loss in without.items():
        assert torch.equal(loss, both[name])
    assert both["masked"].item() > 0


def test_the_step_compares_masked_strong_views_with_labels_of_weak_ones(tiny_network: Network) -> None:
    student, batch = tiny_network(), random_batch(2)
    method = with_teacher(METHODS["mean_teacher"](**new_parts(student)), tiny_network(5))
    seen: list[Tensor] = []
    student.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    loss = method(student, batch, 0.5)["masked"]
    image = seen[-1]
    hidden = (image == torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)).all(dim=1)
    assert 0.3 < hidden.float().mean() < 1
    assert torch.equal(image.where(~hidden.unsqueeze(1), 0.0), batch.strong.where(~hidden.unsqueeze(1), 0.0))
    teacher = method.teacher(batch.weak).logits.softmax(dim=1)
    confidence, label = teacher.max(dim=1)
    logits = student(image).logits.detach()
    assert loss.item() == pytest.approx(loop_loss(logits, confidence, label, batch.valid, 0.3), rel=1e-4)


def test_gradients_reach_the_student_only(tiny_network: Network) -> None:
    student, batch = tiny_network(), random_batch()
    method = with_teacher(METHODS["mean_teacher"](**new_parts(student)), tiny_network(5))
    method(student, batch, 0.5)["masked"].backward()
    assert student.stem[0].weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in method.parameters())


def test_running_statistics_know_no_masked_image(tiny_network: Network) -> None:
    """They are those of a step without the loss; the pass itself still normalises by its own images."""
    statistics, batch = [], random_batch()
    for masked in (False, True):
        student = tiny_network()
        options = new_parts(student)
        options["further_losses"] = options["further_losses"] if masked else []
        method = with_teacher(METHODS["mean_teacher"](**options), tiny_network(5))
        torch.manual_seed(0)
        method(student, batch, 0.5)
        statistics.append({name: value.clone() for name, value in student.named_buffers()})
        assert student.stem[1].track_running_stats
    for name, value in statistics[0].items():
        assert torch.equal(value, statistics[1][name])


def test_the_warm_up_has_no_masked_images(tiny_network: Network) -> None:
    student = tiny_network()
    method = METHODS["mean_teacher"](**{**new_parts(student), "schedule": Schedule(warmup=0.5)})
    assert "masked" not in method(student, random_batch(), 0.4)
    assert "masked" in method(student, random_batch(), 0.6)


def built(*overrides: str, network: nn.Module) -> Any:
    config = load_config("scenes", ["method.contrast=false", "method.schedule.warmup=0", *overrides])
    return build_method(config.method, network, num_classes=C, embedding_dim=D)


def losses_of(method: Any) -> list[MaskedConsistencyLoss]:
    return [part for part in method.modules() if isinstance(part, MaskedConsistencyLoss)]


@pytest.mark.parametrize("name", ["mean_teacher", "unimatch_v2", "weak_u2pl"])
def test_methods_with_a_teacher_take_it(tiny_network: Network, name: str) -> None:
    network = tiny_network(classification=True)
    assert losses_of(built(f"method.name={name}", network=network)) == []
    keys = ("method.masked_consistency.patch=0.5", "method.masked_consistency.ratio=0.2")
    method = built(f"method.name={name}", *keys, "method.masked_consistency.threshold=0.3", network=network)
    (part,) = losses_of(method)
    assert (part.patch, part.ratio, part.quality.threshold, part.jitter) == (0.5, 0.2, 0.3, None)
    method = built(
        f"method.name={name}", "method.masked_consistency={}", "method.strong_views.jitter=mixed", network=network
    )
    (part,) = losses_of(method)
    assert (part.patch, part.ratio, part.quality.threshold) == (0.0625, 0.7, 0.968)
    assert isinstance(part.jitter, Photometric)


def test_unimatch_v2_takes_a_step_with_it(tiny_network: Network) -> None:
    student, batch = tiny_network(), random_batch()
    batch = replace(batch, strong_2=batch.strong**0.9)
    part = MaskedConsistencyLoss(threshold=0.3)
    method = with_teacher(UniMatchV2(**mean_teacher_parts(student), further_losses=[part]), tiny_network(5))
    assert method(student, batch, 0.5)["masked"].item() > 0


def mean_teacher_parts(network: nn.Module) -> dict[str, Any]:
    return {"teacher": mean_teacher(network).teacher}


def test_methods_without_a_teacher_say_so(tiny_network: Network) -> None:
    for name in ("fixmatch", "unimatch"):
        with pytest.raises(InputError, match=f"^method.masked_consistency: needs a teacher .* {name} does not have"):
            built(f"method.name={name}", "method.masked_consistency=true", network=tiny_network())
    # The baseline on labels alone keeps it unused, as all other parts.
    assert losses_of(built("method.name=supervised", "method.masked_consistency=true", network=tiny_network())) == []


def test_labels_are_not_used_in_place_of_the_teachers(tiny_network: Network) -> None:
    """Other labels of labeled images, nothing else: the loss stays."""
    student, batch = tiny_network(), random_batch()
    values = []
    for label in (batch.label, torch.full_like(batch.label, IGNORE_INDEX)):
        method = with_teacher(u2pl(student, contrast=None), tiny_network(5))
        method.further_losses.append(MaskedConsistencyLoss(threshold=0.3))
        torch.manual_seed(0)
        values.append(method(student, replace(batch, label=label), 0.5)["masked"].item())
    assert values[0] == values[1] > 0
