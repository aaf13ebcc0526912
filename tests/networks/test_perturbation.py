"""Dropped features, and the networks that decode them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from u2pl.networks import deeplabv3plus, smp_network
from u2pl.networks.perturbation import append_dropped, complementary_dropout
from u2pl.networks.resnet import Features


def test_half_of_the_channels_of_the_last_images_are_dropped() -> None:
    torch.manual_seed(0)
    features = Features(*(torch.rand(3, 200, 2, 2) + 1 for _ in range(3)))
    out = append_dropped(features, 2)
    assert isinstance(out, Features)
    for before, after in zip(features, out, strict=True):
        assert torch.equal(after[:3], before)
        for image in range(2):
            zero = 0
            for channel in range(200):
                now, then = after[3 + image, channel], before[1 + image, channel]
                if not now.any():
                    zero += 1
                else:
                    torch.testing.assert_close(now, 2 * then)
            assert 70 < zero < 130


def test_structures_and_tokens() -> None:
    tokens = torch.rand(2, 5, 8)
    maps = [torch.rand(2, 4, 3, 3), torch.rand(2, 0, 3, 3)]
    out = append_dropped((maps, [tokens, None]), 1)
    assert isinstance(out, tuple)
    assert isinstance(out[0], list)
    assert [len(each) for each in out[0]] == [3, 3]
    assert torch.equal(out[1][0], torch.cat((tokens, tokens[-1:])))
    assert out[1][1] is None
    assert append_dropped(maps, 0) is maps


@pytest.mark.parametrize("pairs", [1, 2, 3, 4])
def test_two_views_get_complementary_channels(pairs: int) -> None:
    torch.manual_seed(pairs)
    first = torch.rand(2 + 2 * pairs, 100, 2, 2) + 1
    wide = [first, first + 1, torch.rand(2 + 2 * pairs, 60, 3, 3) + 1]
    out = complementary_dropout(wide, pairs)
    unchanged = set()
    for before, after in zip(wide, out, strict=True):
        assert torch.equal(after[:2], before[:2])
        for image in range(2, 2 + pairs):
            factors = set()
            for channel in range(before.shape[1]):
                one, other = (after[each, channel] / before[each, channel] for each in (image, image + pairs))
                assert one.unique().numel() <= 2  # a factor, but for rounding
                factors.add((round(one.mean().item()), round(other.mean().item())))
            assert factors in ({(1, 1)}, {(0, 2), (2, 0)})
            if factors == {(1, 1)}:
                unchanged.add(image)
            else:
                assert image not in unchanged
                kept = (after[image].flatten(1).sum(dim=1) > 0).float().mean()
                assert 0.25 < kept < 0.75
    assert len(unchanged) == pairs // 2
    torch.testing.assert_close(out[0] / wide[0], out[1] / wide[1])  # one width, one mask


def test_which_images_stay_unchanged_is_drawn() -> None:
    ones, seen = torch.ones(8, 50, 1, 1), set()
    for seed in range(20):
        torch.manual_seed(seed)
        out = complementary_dropout(ones, 4)
        seen.add(tuple(image for image in range(4) if torch.equal(out[image], ones[0])))
    assert all(len(each) == 2 for each in seen)
    assert len(seen) > 3


def test_complementary_structures_and_tokens() -> None:
    tokens = torch.rand(2, 5, 8)
    out = complementary_dropout(([torch.rand(2, 4, 3, 3), torch.rand(2, 0, 3, 3)], [tokens, None]), 1)
    assert isinstance(out, tuple)
    assert [each.shape[1] for each in out[0]] == [4, 0]
    assert out[1][0] is tokens
    assert out[1][1] is None
    assert complementary_dropout(out, 0) is out


def networks() -> dict[str, Any]:
    small = {"num_classes": 3, "embedding_dim": 4}
    return {
        "deeplabv3plus": lambda: deeplabv3plus(
            encoder="resnet18", channels=8, low_level_channels=8, auxiliary=True, **small
        ),
        "Unet": lambda: smp_network(encoder="resnet18", **small),
        "DPT": lambda: smp_network(
            architecture="DPT", encoder="tu-vit_tiny_patch16_224", dynamic_img_size=True, **small
        ),
        "Segformer": lambda: smp_network(architecture="Segformer", encoder="mit_b0", **small),
    }


@pytest.mark.parametrize("name", networks())
def test_networks_return_the_dropped_images_last(name: str) -> None:
    torch.manual_seed(0)
    network: nn.Module = networks()[name]().eval()
    image = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        plain, out = network(image), network(image, dropped=2)
    for field in ("logits", "coarse", "embedding"):
        before, after = getattr(plain, field), getattr(out, field)
        assert len(after) == 5
        torch.testing.assert_close(after[:3], before, rtol=1e-3, atol=1e-4)
        assert (after[3:] - before[1:]).abs().max() > 1e-3


@pytest.mark.parametrize("name", networks())
def test_networks_decode_complementary_channels_of_the_last_images(name: str) -> None:
    torch.manual_seed(0)
    network: nn.Module = networks()[name]().eval()
    image = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        plain, out = network(image), network(image, complementary=1)
    for field in ("logits", "coarse", "embedding"):
        before, after = getattr(plain, field), getattr(out, field)
        assert len(after) == 3
        torch.testing.assert_close(after[:1], before[:1], rtol=1e-3, atol=1e-4)
        assert all((after[image] - before[image]).abs().max() > 1e-3 for image in (1, 2))
