"""A network that leaves u2pl: one traced graph for images of every size."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.build.exported import Exported, _scaled, exported_program
from u2pl.engine.inference import Tagged
from u2pl.networks import deeplabv3plus, smp_network

SIZES = ((1, 70, 101), (2, 64, 96), (3, 33, 31), (1, 17, 300), (1, 224, 160))
DEEPLAB = {"num_classes": 5, "channels": 8, "low_level_channels": 4}


def small(**options: object) -> Callable[[], nn.Module]:
    return lambda: smp_network(num_classes=5, embedding_dim=8, **options)  # type: ignore[arg-type]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "deeplab": lambda: deeplabv3plus(encoder="resnet18", embedding_dim=8, **DEEPLAB),  # type: ignore[arg-type]
    "fpn": small(architecture="FPN", encoder="resnet18", channels=32),
}
SLOW: dict[str, Callable[[], nn.Module]] = {
    "released": lambda: deeplabv3plus(encoder="resnet50", deep_stem=True, output_stride=8, **DEEPLAB),  # type: ignore[arg-type]
    "unet": small(architecture="Unet", encoder="mobilenet_v2", decoder_channels=[16, 16, 8, 8, 8]),
    "lite": small(architecture="FPN", encoder="tu-tf_efficientnet_lite2", channels=32),
}


def settled(build: Callable[[], nn.Module]) -> nn.Module:
    """A network whose normalisations have seen images: its classes differ from pixel to pixel."""
    torch.manual_seed(0)
    network = build().train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(4, 3, 64, 96))
    return network.eval()


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_one_graph_fits_images_of_all_sizes(name: str) -> None:
    network = settled({**NETWORKS, **SLOW}[name])
    run = exported_program(Exported(network)).module()
    for count, height, width in SIZES:
        image = torch.rand(count, 3, height, width)
        with torch.no_grad():
            torch.testing.assert_close(run(image), network(image).logits, rtol=1e-4, atol=1e-4)


def test_images_are_resized_inside() -> None:
    network = settled(NETWORKS["deeplab"])
    run = exported_program(Exported(network, scale=0.5)).module()
    for height, width in ((70, 101), (64, 97)):
        image = torch.rand(2, 3, height, width)
        sides = [max(1, round(side * 0.5)) for side in (height, width)]
        with torch.no_grad():
            scores = network(F.interpolate(image, size=sides, mode="bilinear", antialias=True)).logits
            expected = F.interpolate(scores, size=(height, width), mode="bilinear")
            torch.testing.assert_close(run(image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [0.5, 0.25, 0.75, 1.5, 2.0, 0.125])
def test_sides_are_rounded_as_by_python(scale: float) -> None:
    for side in range(1, 600):
        assert int(_scaled(side, Fraction(scale))) == max(1, round(side * scale))


@pytest.mark.parametrize("tags", [True, False])
def test_a_classification_head_counts_as_in_a_prediction(tags: bool) -> None:
    network = settled(lambda: smp_network(num_classes=5, architecture="FPN", encoder="resnet18", classification=True))
    image = torch.rand(1, 3, 50, 70)
    with torch.no_grad():
        scores: Tensor = exported_program(Exported(network, tags=tags)).module()(image)
        expected = Tagged(network)(image) if tags else network(image).logits
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(Tagged(network)(image), network(image).logits)
