"""Seeds of a network's class activation maps, against the same thing one look after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.methods.seeding import Seeding, covered
from u2pl.pixels.cam import PixelAdaptiveRefinement

Network = Callable[..., nn.Module]
K, SIZE = 3, 16
NONE = PixelAdaptiveRefinement(iterations=0)


@pytest.fixture
def network(tiny_network: Network) -> Any:
    return tiny_network(1, classification=True).eval()


def images(seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.rand(2, 3, SIZE, SIZE), torch.tensor([[True, False, True], [False, True, True]])


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.5)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("stride", [1, 4])
def test_maps_of_several_looks(network: Any, scales: tuple[float, ...], flip: bool, stride: int) -> None:
    image, tags = images()
    maps = Seeding(scales=scales, flip=flip, stride=stride).maps(network, image, tags)
    assert maps.shape == (2, K, SIZE // stride, SIZE // stride)
    for b in range(2):
        total = torch.zeros(K, SIZE // stride, SIZE // stride)
        for scale in scales:
            side = int(SIZE * scale)
            looked_at = F.interpolate(image[b : b + 1], size=(side, side), mode="bilinear", antialias=True)
            for mirrored in (False, True) if flip else (False,):
                seen = looked_at.flip(-1) if mirrored else looked_at
                features = network.stem(seen)[0]
                weight = network.classification.weight.flatten(1)
                activation = torch.zeros(K, *features.shape[1:])
                for k in range(K):
                    for y in range(features.shape[1]):
                        for x in range(features.shape[2]):
                            score = (weight[k] @ features[:, y, x]).item()
                            where = features.shape[2] - 1 - x if mirrored else x
                            activation[k, y, where] = max(score, 0.0)
                total += F.interpolate(activation[None], size=total.shape[-2:], mode="bilinear")[0]
        for k in range(K):
            expected = total[k] / total[k].max() if tags[b, k] else torch.zeros_like(total[k])
            torch.testing.assert_close(maps[b, k], expected, atol=1e-5, rtol=1e-4)


def test_padding_has_no_map_and_no_seed(network: Any) -> None:
    image, tags = images()
    valid = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    valid[0, :, 8:] = False
    seeding = Seeding(scales=(1.0,), flip=False, refinement=NONE)
    maps = seeding.maps(network, image, tags, valid)
    assert not maps[0, :, :, 2:].any()
    assert maps[0, tags[0]].amax(dim=(1, 2)).tolist() == pytest.approx([1, 1])  # the largest that is left
    label = seeding(network, image, tags, valid)
    assert (label[0, :, 8:] == 255).all()
    assert torch.equal(label[1], seeding(network, image, tags)[1])


def test_refinement_sees_the_image_at_the_size_of_the_maps(network: Any) -> None:
    image, tags = images()
    seeding = Seeding(stride=4, refinement=PixelAdaptiveRefinement(2, (1,)))
    maps = seeding.maps(network, image, tags)
    refined = seeding.refined(image, maps)
    small = F.interpolate(image, size=(4, 4), mode="bilinear", antialias=True)
    expected = PixelAdaptiveRefinement(2, (1,))(small, maps)
    for b in range(2):
        for k in range(K):
            largest = expected[b, k].max()
            torch.testing.assert_close(refined[b, k], expected[b, k] / largest if tags[b, k] else torch.zeros(4, 4))


def test_the_background_is_below_the_foreground() -> None:
    assert Seeding(high=0.5, low=0.5).threshold == 0.5
    assert Seeding(high=0.6, low=0.2).threshold == pytest.approx(0.4)
    with pytest.raises(ValueError, match=r"low: 0\.3 is above high, 0\.2"):
        Seeding(high=0.2, low=0.3)


@pytest.mark.parametrize("seed", range(3))
def test_seeds_are_of_the_tags_and_between_the_thresholds_there_is_none(network: Any, seed: int) -> None:
    image, tags = images(seed)
    seeding = Seeding(high=0.7, low=0.3)
    label = seeding(network, image, tags)
    assert (label.shape, label.dtype) == ((2, SIZE, SIZE), torch.int64)
    refined = F.interpolate(
        seeding.refined(image, seeding.maps(network, image, tags)), size=(SIZE, SIZE), mode="bilinear"
    )
    for b in range(2):
        assert set(label[b].unique().tolist()) <= {0, 255, *(1 + k for k in range(K) if tags[b, k])}
        for y in range(SIZE):
            for x in range(SIZE):
                largest = refined[b, :, y, x].max().item()
                expected = int(refined[b, :, y, x].argmax()) + 1 if largest >= 0.7 else 0 if largest <= 0.3 else 255
                assert label[b, y, x] == expected


def test_no_gradient_and_modes_stay(network: Any) -> None:
    image, tags = images()
    assert not Seeding().maps(network, image, tags).requires_grad
    assert not network.training


def test_sides_are_covered() -> None:
    image = torch.rand(1, 3, 50, 70)
    assert covered(image, 1.0, 32, corners=False).shape[-2:] == (64, 64)
    assert covered(image, 0.25, 32, corners=False).shape[-2:] == (32, 32)
    assert covered(image, 1.5, 14, corners=False).shape[-2:] == (70, 112)
    assert covered(image, 1.0, 10, corners=False) is image
    assert covered(image, 1.0, 32, corners=True).shape[-2:] == (65, 65)
    assert covered(image, 0.1, 32, corners=True).shape[-2:] == (33, 33)
    assert covered(image, 1.0, 7, corners=True).shape[-2:] == (50, 71)
    assert covered(image[..., :50], 1.0, 7, corners=True).shape == (1, 3, 50, 50)


class Centres(nn.Module):
    """The activation of a place is the brightness of the pixel that it is centred on."""

    multiple = 8

    def __init__(self, *, corners: bool) -> None:
        super().__init__()
        self.corners = corners

    def activate(self, image: Tensor) -> Tensor:
        first = 0 if self.corners else self.multiple // 2
        return image[:, :1, first :: self.multiple, first :: self.multiple]


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("side", [33, 40, 47])
def test_maps_lie_where_the_image_is(corners: bool, flip: bool, side: int) -> None:
    """The map of a ramp is that ramp, to a pixel, in both directions; half a cell aside, it would be off by four."""
    ramp = torch.arange(1.0, side + 1)
    for image in (ramp.expand(side, side), ramp.view(-1, 1).expand(side, side)):
        seeding = Seeding(scales=(1.0,), flip=flip, stride=1)
        maps = seeding.maps(Centres(corners=corners), image.expand(1, 3, -1, -1), torch.ones(1, 1, dtype=torch.bool))
        inner = slice(4, side - 4)  # patches know nothing of what is beyond their centres
        found = (maps[0, 0] / maps[0, 0, side // 2, side // 2] * image[side // 2, side // 2])[inner, inner]
        torch.testing.assert_close(found, image[inner, inner], atol=1.0, rtol=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_segmentation_has_a_share(network: Any, seed: int, share: float) -> None:
    image, tags = images(seed)
    probability = (4 * torch.randn(2, K + 1, SIZE, SIZE)).softmax(dim=1)
    valid = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    valid[0, :, 8:] = False
    seeding = Seeding(stride=2, refinement=PixelAdaptiveRefinement(2, (1,)), share=share)
    maps = seeding.maps(network, image, tags, valid)
    mixed = torch.zeros_like(maps)
    small = F.interpolate(probability, size=maps.shape[-2:], mode="bilinear")
    for b in range(2):
        for k in range(K):
            mixed[b, k] = (1 - share) * maps[b, k] + share * small[b, k + 1]
    refined = F.interpolate(seeding.refined(image, mixed), size=(SIZE, SIZE), mode="bilinear")
    label = seeding(network, image, tags, valid, probability)
    for b in range(2):
        for y in range(SIZE):
            for x in range(SIZE):
                best = max(range(K), key=lambda k: refined[b, k, y, x].item())
                height = refined[b, best, y, x].item()
                expected = best + 1 if height >= 0.55 else 0 if height <= 0.25 else 255
                assert label[b, y, x] == (expected if valid[b, y, x] else 255)
    assert torch.equal(label, seeding(network, image, tags, valid)) == (share == 0)
