"""With a frozen encoder, images are encoded once, and every number stays what it was."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from assemble import mean_teacher, u2pl, weak_u2pl
from torch import Tensor, nn

from u2pl.methods import FixMatch, Supervised, UniMatch
from u2pl.methods.base import Method
from u2pl.methods.frozen_features import FrozenFeatures, frozen_features
from u2pl.methods.seeding import Seeding
from u2pl.networks import smp_network
from u2pl.pixels import UnreliableContrast
from u2pl.pixels.cam import PixelAdaptiveRefinement
from u2pl.pixels.negative_keys import NegativeKeys
from u2pl.structures import Batch

CLASSES, SIDE = 4, 64
CALLS: list[int] = []  #: images of each pass of the encoder


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    CALLS.clear()
    yield
    CALLS.clear()


def student_of(freeze: bool | int = True, **options: Any) -> Any:
    torch.manual_seed(0)
    heads: dict[str, Any] = {"embedding_dim": 3, "channels": 32, **options}
    network = smp_network(num_classes=CLASSES, architecture="FPN", encoder="resnet18", **heads)
    for _ in range(5):  # statistics of such images
        network(torch.rand(4, 3, SIDE, SIDE))
    network.freeze(freeze)
    network.encoder.register_forward_pre_hook(lambda module, inputs: CALLS.append(len(inputs[0])))
    return network.train()


def random_batch(*, labeled: int = 2) -> Batch:
    torch.manual_seed(1)
    weak = torch.rand(3, 3, SIDE, SIDE)
    label = torch.randint(0, CLASSES, (labeled, SIDE // 8, SIDE // 8))
    tags = torch.tensor([[True, True, False, True], [True, False, True, False], [True, True, True, False]])
    return Batch(
        image=torch.rand(labeled, 3, SIDE, SIDE),
        label=label.repeat_interleave(8, 1).repeat_interleave(8, 2),
        weak=weak,
        strong=weak**0.7,
        valid=torch.ones(3, SIDE, SIDE, dtype=torch.bool),
        strong_2=weak**1.3,
        tags=tags,
        tagged=torch.ones(3, dtype=torch.bool),
    )


def new_contrast() -> UnreliableContrast:
    sizes = {"anchors": 8, "negatives": 8, "bank_size": 32, "keys_per_step": 16, "min_probability": 0.2}
    return UnreliableContrast(CLASSES, 3, negative_keys=NegativeKeys(1, 3), **sizes)


def weak_method(student: Any) -> Method:
    seeding = Seeding(warmup=0, scales=(0.5,), flip=False, refinement=PixelAdaptiveRefinement(1, (1,)), high=0.6)
    return weak_u2pl(student, contrast=new_contrast(), seeding=seeding, teacher_passes=1)


METHODS: dict[str, Callable[[Any], Method]] = {
    "two passes": lambda student: u2pl(student, contrast=new_contrast()),
    "one pass": lambda student: u2pl(student, contrast=new_contrast(), teacher_passes=1),
    "dropped": lambda student: u2pl(student, contrast=new_contrast(), feature_dropout=True),
    "mean teacher": mean_teacher,
    "weak": weak_method,
    "fixmatch": lambda student: FixMatch(threshold=0.3),
    "unimatch": lambda student: UniMatch(threshold=0.3),
    "supervised": lambda student: Supervised(),
}
OPTIONS: dict[str, dict[str, Any]] = {"weak": {"classification": True}}
#: Images of each pass of the encoder in a step with 2 labeled images and 3 unlabeled ones, of two strong views each.
PASSES = {
    "two passes": [3, 2, 6],  # weak, labeled, mixed: the student needs no pass of its own
    "one pass": [2, 3, 6],
    "dropped": [3, 2, 6],
    "mean teacher": [3, 2, 6],
    "weak": [3, 3, 5, 6],  # activation maps at half the size; segmentation; labeled and weak; mixed
    "fixmatch": [3, 8],
    "unimatch": [5, 6],
    "supervised": [2],
}
WITHOUT_REUSE = {
    "two passes": [3, 2, 6, 2, 6],
    "one pass": [2, 3, 2, 6],
    "dropped": [3, 2, 6, 3, 2, 6],
    "mean teacher": [3, 2, 6],
    "weak": [3, 3, 5, 5, 6],
    **{name: PASSES[name] for name in ("fixmatch", "unimatch", "supervised")},
}


def step(name: str, freeze: bool | int = True) -> dict[str, Tensor]:
    """Losses and gradients of the first step."""
    student = student_of(freeze, **OPTIONS.get(name, {}))
    method, batch = METHODS[name](student).train(), random_batch()
    CALLS.clear()
    torch.manual_seed(2)
    losses = method(student, batch, 0.5)
    sum(losses.values()).backward()
    gradients = {key: each.grad for key, each in student.named_parameters() if each.grad is not None}
    assert len(gradients) > 10
    return {key: loss.detach() for key, loss in losses.items()} | gradients


@pytest.mark.parametrize("name", METHODS)
def test_images_are_encoded_once_and_the_numbers_are_those_of_encoding_them_again(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    once = step(name)
    assert PASSES[name] == CALLS
    monkeypatch.setattr(FrozenFeatures, "known", property(lambda self: {}, lambda self, value: None), raising=False)
    again = step(name)
    assert WITHOUT_REUSE[name] == CALLS
    assert list(once) == list(again)
    for key, value in once.items():
        assert torch.equal(value, again[key]), key


@pytest.mark.parametrize("name", METHODS)
def test_nothing_else_differs_from_passes_over_all_images_together(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """How a network without reuse gets them, up to the order in which numbers are added."""
    once = step(name)
    monkeypatch.setattr("u2pl.methods.ema.frozen_features", lambda network: None)
    plain = step(name)
    assert sum(CALLS) > sum(PASSES[name]) or name in ("fixmatch", "unimatch", "supervised", "mean teacher")
    for key, value in once.items():
        torch.testing.assert_close(value, plain[key], rtol=1e-3, atol=1e-4)


def test_weak_images_alone_are_encoded_once_for_seeds_teacher_and_student() -> None:
    student = student_of(classification=True)
    method, batch = METHODS["weak"](student).train(), random_batch(labeled=0)
    CALLS.clear()
    method(student, batch, 0.5)
    assert CALLS == [3, 3, 6]  # activation maps; weak; mixed


def test_the_features_are_forgotten_with_their_images() -> None:
    features = frozen_features(student_of())
    assert features is not None
    first, second = torch.rand(2, 3, SIDE, SIDE), torch.rand(1, 3, SIDE, SIDE)
    with torch.enable_grad():
        joined = features(first, second)
    assert not any(each.requires_grad for each in joined.features)
    assert features(second) is features(second)
    assert len(features.known) == 2
    del first
    gc.collect()
    assert len(features.known) == 1
    assert CALLS == [2, 1]
    features(second.clone())  # equal images in another tensor
    assert CALLS == [2, 1, 1]


@pytest.mark.parametrize("freeze", [False, 2, 4])
def test_the_features_of_an_encoder_that_trains_are_not_kept(freeze: bool | int) -> None:
    assert frozen_features(student_of(freeze)) is None
    assert frozen_features(nn.Conv2d(3, 4, 1)) is None
    step("two passes", freeze)
    assert CALLS == [3, 8, 8]  # weak; labeled and mixed, by the student and by the teacher


def test_a_copy_of_a_method_has_an_encoder_of_its_own() -> None:
    student = student_of()
    method = METHODS["two passes"](student)
    method(student, replace(random_batch(), strong_2=None), 0.5)
    other = copy.deepcopy(method)
    assert other.teacher.features.network is other.teacher.network
    assert other.teacher.network.encoder is not method.teacher.network.encoder
