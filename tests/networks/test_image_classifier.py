"""What an image shows, against loops over classes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from u2pl.networks.image_classifier import ImageClassifier
from u2pl.networks.image_encoder import ImageEncoder
from u2pl.networks.vocabulary import Vocabulary


def encoder(vocabulary: Vocabulary | None = None) -> ImageEncoder:
    torch.manual_seed(0)
    found = ImageEncoder(
        normalize=nn.Identity(),
        encoder=nn.Conv2d(3, 6, 32, stride=32),
        last=lambda features: features,
        vocabulary=vocabulary,
    )
    found.standardise(torch.rand(9, 6))
    return found


def classifier(told: list[bool], seen: ImageEncoder | None = None, rows: int = 6) -> ImageClassifier:
    generator = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(len(told), rows, generator=generator), torch.randn(len(told), generator=generator)
    return ImageClassifier(seen or encoder(), weight=weight, bias=bias, told=torch.tensor(told))


def slow(model: ImageClassifier, image: Tensor) -> list[list[float]]:
    found = []
    for row in model.encoder(image).tolist():
        score = [
            sum(w * x for w, x in zip(weight, row, strict=True)) + bias
            for weight, bias in zip(model.weight.tolist(), model.bias.tolist(), strict=True)
        ]
        told = [c for c in range(len(score)) if model.told[c]]
        total = sum(math.exp(score[c]) for c in told)
        probability = {c: math.exp(score[c]) / total for c in told}
        best = max(probability.values(), default=1.0)
        found.append([math.log(probability[c] / best) if c in told else 0.0 for c in range(len(score))])
    return found


@pytest.mark.parametrize("told", [[False, True, True, False, True], [True] * 3, [False, True, False], [False, False]])
@pytest.mark.parametrize("images", [1, 3])
def test_log_probabilities_are_relative_to_the_likeliest(told: list[bool], images: int) -> None:
    model = classifier(told)
    image = torch.rand(images, 3, 40, 50)
    found = model(image)
    torch.testing.assert_close(found, torch.tensor(slow(model, image)))
    assert found.max(dim=1).values.eq(0).all()


def test_precision_of_training_makes_no_difference() -> None:
    model, image = classifier([False, True, True]), torch.rand(2, 3, 40, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(image.bfloat16().float()), model(image.bfloat16()))
        found = model(image)
    assert found.dtype == torch.float32
    assert torch.equal(found, model(image))


@pytest.mark.parametrize("vocabulary", [None, Vocabulary(torch.rand(10, 6), torch.rand(10))])
def test_it_is_the_same_from_its_state(vocabulary: Any) -> None:
    model = classifier([False, True, True], encoder(vocabulary), rows=6 if vocabulary is None else 10)
    other = encoder()
    nn.init.zeros_(other.encoder.weight)  # type: ignore[union-attr]
    again = ImageClassifier.from_state(other, model.state_dict(), num_classes=3)
    image = torch.rand(2, 3, 40, 50)
    assert torch.equal(again(image), model(image))
    assert again.state_dict().keys() == model.state_dict().keys()
    assert not [parameter for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("broken", ["weight", "bias", "told", "encoder.centre", "encoder.encoder.weight", "all"])
def test_the_state_of_something_else_is_refused(broken: str) -> None:
    """A tensor is missing, or of another size, or all are of other classes."""
    state = classifier([False, True, True]).state_dict()
    if broken == "all":
        with pytest.raises(ValueError, match="3 classes, not 4"):
            ImageClassifier.from_state(encoder(), state, num_classes=4)
        return
    for change in ({}, {broken: state[broken][:2]}):
        other = {name: tensor for name, tensor in state.items() if name != broken} | change
        with pytest.raises((KeyError, RuntimeError, ValueError)):
            ImageClassifier.from_state(encoder(), other, num_classes=3)
