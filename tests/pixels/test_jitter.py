"""Jitter of a batch against torchvision's functions, image by image with the same numbers."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from u2pl.pixels import jitter as of_batches
from u2pl.pixels.jitter import blurred, jittered, turned
from u2pl.structures import Jitter

OFF = torch.tensor([0.0, 0, 1, 0, 0])
ADJUST = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


def row(
    order: tuple[int, ...], factors: tuple[float, ...], gray: bool = False, kernel: Tensor = OFF
) -> tuple[Tensor, ...]:
    """The numbers of an image, written step by step: what comes before the hue takes the steps just before it."""
    blends = [[1.0, 0.0, 0.0] for _ in range(6)]
    step = 3 - order.index(3)
    for part in order:
        if part < 3:
            blends[step] = [factors[part], float(part == 1), float(part == 2)]
            step += 1
    return torch.tensor(blends), torch.tensor(factors[3]), torch.tensor(float(gray)), kernel


def packed(rows: list[tuple[Tensor, ...]]) -> Jitter:
    blends, hue, gray, kernel = (torch.stack(column) for column in zip(*rows, strict=True))
    return Jitter.pack(blends=blends, hue=hue, gray=gray, kernel=kernel)


def device_path(images: Tensor, jitter: Jitter, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What an accelerator computes, on the CPU."""
    monkeypatch.setattr(of_batches, "_on_host", lambda images: False)
    return jittered(images, jitter)


def colours(count: int, height: int = 21, width: int = 26) -> Tensor:
    """Noise with gray, black, white and pure pixels, on which hues are not unique."""
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    images[:, :, 0] = images[:, :1, 0]
    images[:, :, 1], images[:, :, 2] = 0, 1
    images[:, :, 3] = (images[:, :, 3] > 0.5).float()
    images[:, 1, 4] = images[:, 0, 4]
    return images


@pytest.mark.parametrize("device", ["host", "other"])
def test_every_order_is_that_of_torchvision(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = list(itertools.permutations(range(4)))
    images, rows = colours(len(orders)), []
    expected = images.clone()
    generator = torch.Generator().manual_seed(1)
    for number, order in enumerate(orders):
        factors = tuple((0.5 + torch.rand(3, generator=generator)).tolist())
        factors = (*factors, torch.rand((), generator=generator).item() - 0.5)
        sigma, gray, is_blurred = 0.3 + 0.1 * number, number % 4 == 0, number % 3 != 0
        weights = torch.exp(-0.5 * (torch.arange(-2, 3) / sigma) ** 2)
        rows.append(row(order, factors, gray, weights / weights.sum() if is_blurred else OFF))
        one = expected[number]
        for part in order:
            one = ADJUST[part](one, factors[part])
        one = F.rgb_to_grayscale(one, 3) if gray else one
        expected[number] = F.gaussian_blur(one, [5, 5], [sigma, sigma]) if is_blurred else one
    jitter, before = packed(rows), images.clone()
    found = jittered(images, jitter) if device == "host" else device_path(images, jitter, monkeypatch)
    torch.testing.assert_close(found, expected, atol=5e-6, rtol=0)
    assert torch.equal(images, before)


@pytest.mark.parametrize("device", ["host", "other"])
def test_rows_that_change_nothing(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part alone may be off."""
    images = colours(3)
    rows = [row((0, 1, 2, 3), (1.0, 1.0, 1.0, 0.0)), row((3, 0, 1, 2), (1.5, 1.0, 1.0, 0.0))]
    rows.append(row((0, 1, 2, 3), (1.0, 1.0, 1.0, 0.0), gray=True))
    jitter = packed(rows)
    found = jittered(images, jitter) if device == "host" else device_path(images, jitter, monkeypatch)
    torch.testing.assert_close(found[0], images[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], (images[1] * 1.5).clamp(max=1), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[2], F.rgb_to_grayscale(images[2], 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("hue", [-0.5, -0.25, -0.1, 0.0, 1 / 6, 0.3, 0.5])
def test_turned_hues_are_those_by_way_of_hsv(hue: float) -> None:
    images = colours(2, 60, 60)
    torch.testing.assert_close(turned(images, hue), F.adjust_hue(images, hue), atol=3e-6, rtol=0)
    both = turned(images, torch.tensor([hue, -hue]).view(2, 1, 1, 1))
    torch.testing.assert_close(both[1], F.adjust_hue(images[1], -hue), atol=3e-6, rtol=0)


def test_blur_is_a_weighted_mean_of_reflected_neighbours() -> None:
    images = torch.rand(2, 3, 5, 6)
    kernel = torch.rand(2, 5)
    found = blurred(images, kernel)

    def reflected(place: int, length: int) -> int:
        return min(abs(place), 2 * (length - 1) - abs(place))

    for number, band, y, x in itertools.product(range(2), range(3), range(5), range(6)):
        total = 0.0
        for i, j in itertools.product(range(5), range(5)):
            value = images[number, band, reflected(y + i - 2, 5), reflected(x + j - 2, 6)]
            total += float(kernel[number, i] * kernel[number, j] * value)
        assert found[number, band, y, x].item() == pytest.approx(total, abs=1e-5)


def test_no_device_is_waited_for() -> None:
    """Tensors of the meta device have no values: whatever would read one back fails."""
    images = torch.empty(3, 3, 16, 16, device="meta")
    jitter = Jitter(torch.empty(3, 29, device="meta"))
    assert jittered(images, jitter).shape == (3, 3, 16, 16)


def test_a_batch_without_images() -> None:
    assert jittered(torch.empty(0, 3, 16, 16), Jitter(torch.empty(0, 29))).shape == (0, 3, 16, 16)
