"""Images seen as a whole, by a copy of the encoder, against loops over places."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder_kinds import STRIDE, build, last_features
from u2pl.networks.image_encoder import SIDE, ImageEncoder
from u2pl.networks.vocabulary import Vocabulary


@pytest.mark.parametrize("name", STRIDE)
def test_an_image_is_described_by_its_mean_features(name: str) -> None:
    network = build(name).eval()
    image = torch.rand(2, 3, SIDE, SIDE + 32)
    with torch.no_grad():
        features, found = last_features(network, image), network.image_encoder().described(image)
    assert found.shape == features.shape[:2]
    for b in range(2):
        for k in (0, features.shape[1] - 1):
            places = features[b, k].flatten().tolist()
            assert found[b, k].item() == pytest.approx(sum(places) / len(places), abs=1e-5)


@pytest.mark.parametrize("name", STRIDE)
def test_it_stays_as_it_is_when_the_network_is_trained(name: str) -> None:
    network = build(name).eval()
    encoder, image = network.image_encoder(), torch.rand(1, 3, SIDE, SIDE)
    before = encoder(image)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert torch.equal(encoder.train()(image), before)
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


class Colours(nn.Module):
    """Six features that are the colours of the image and their opposites; remembers the sizes it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[list[int]] = []

    def forward(self, image: Tensor) -> list[Tensor]:
        self.sizes.append(list(image.shape[-2:]))
        return [image, torch.cat((image, 1 - image), dim=1)]


def of_colours(vocabulary: Vocabulary | None = None, **options: Any) -> ImageEncoder:
    return ImageEncoder(
        normalize=nn.Identity(), encoder=Colours(), last=lambda encoded: encoded[-1], vocabulary=vocabulary, **options
    )


def plain(value: float, height: int, width: int) -> Tensor:
    return torch.full((1, 3, height, width), value)


@pytest.mark.parametrize(
    ("size", "options", "seen"),
    [
        ((20, 30), {}, [SIDE, 336]),
        ((512, 256), {}, [448, SIDE]),
        ((300, 601), {}, [SIDE, 449]),
        ((300, 601), {"multiple": 32}, [SIDE, 480]),
        ((1, 1), {"minimum": 256}, [256, 256]),
    ],
)
def test_images_are_seen_at_one_size(size: tuple[int, int], options: dict[str, int], seen: list[int]) -> None:
    encoder = of_colours(**options)
    encoder(plain(0.5, *size))
    assert encoder.encoder.sizes == [seen]


def test_mean_features_are_compared_by_how_they_differ() -> None:
    encoder = of_colours()
    images = [plain(value, 20, 30) for value in (1.0, 0.0, 0.2)]
    described = torch.cat([encoder.described(image) for image in images])
    encoder.standardise(described)
    colour = torch.tensor([1.0, 0.0, 0.2])
    standard = (colour - 0.4) / (colour.std() + 1e-3)
    expected = torch.stack([standard] * 3 + [-standard] * 3, dim=1)
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(encoder.compared(described), expected)
    for image, row in zip(images, expected, strict=True):
        torch.testing.assert_close(encoder(image)[0], row)


def test_a_classifier_says_what_they_show() -> None:
    """Roots of probabilities, of length 1 by themselves: products are Bhattacharyya coefficients."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = Vocabulary(torch.randn(4, 6, generator=generator), torch.rand(4, generator=generator))
    encoder = of_colours(vocabulary)
    encoder.standardise(torch.rand(5, 4))  # has nothing to do
    for value in (1.0, 0.0, 0.2):
        features = [value] * 3 + [1 - value] * 3
        logits = [
            sum(w * f for w, f in zip(row, features, strict=True)) + b
            for row, b in zip(vocabulary.weight.tolist(), vocabulary.bias.tolist(), strict=True)
        ]
        total = sum(math.exp(logit) for logit in logits)
        expected = torch.tensor([math.sqrt(math.exp(logit) / total) for logit in logits])
        torch.testing.assert_close(encoder(plain(value, 20, 30))[0], expected)
        assert F.normalize(expected, dim=0).allclose(expected)
