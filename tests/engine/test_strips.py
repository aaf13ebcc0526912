"""Very large images: the same classes as through windows over the whole image, in little memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.engine.inference import MultiScale, Sized, Sliding, Softmax, Whole, inference
from u2pl.engine.memory import total_memory, whole_pixels
from u2pl.engine.strips import labels_by_strips
from u2pl.predictor import Predictor
from u2pl.structures import SegmentationOutput


class Blurred(nn.Module):
    """Classes by the colours around a pixel, so that the border of a window changes the outcome."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, classes, 7, padding=3)
        self.sizes: list[tuple[int, int]] = []

    def forward(self, image: Tensor) -> SegmentationOutput:
        self.sizes.append((image.shape[-2], image.shape[-1]))
        logits = 40 * self.layer(image - 0.5)
        return SegmentationOutput(logits, logits)


def smooth(height: int, width: int) -> Tensor:
    small = torch.rand(1, 3, height // 6 + 2, width // 6 + 2, generator=torch.Generator().manual_seed(1))
    return (255 * F.interpolate(small, size=(height, width), mode="bilinear"))[0].to(torch.uint8)


@pytest.mark.parametrize("size", [(40, 60), (16, 90), (91, 16), (33, 33), (7, 5), (64, 48)])
@pytest.mark.parametrize("overlap", [0.0, 0.33, 0.8])
def test_strips_are_the_windows_of_the_whole_image(size: tuple[int, int], overlap: float) -> None:
    network, image = Blurred(), smooth(*size)
    segment = Softmax(Whole(network))
    expected = Sliding(segment, window=16, overlap=overlap)(image[None].float().div(255)).argmax(dim=1)[0]
    found = labels_by_strips(image, segment, device=torch.device("cpu"), window=16, overlap=overlap)
    assert torch.equal(found, expected.to(torch.uint8))


def test_a_prior_shifts_the_scores() -> None:
    image, shift = smooth(40, 30), torch.tensor([0.0, -30.0, -30.0, -30.0])
    segment = Softmax(Whole(Blurred()))
    found = labels_by_strips(image, segment, device=torch.device("cpu"), window=16, overlap=0.5, shift=shift)
    probability = Sliding(segment, window=16, overlap=0.5)(image[None].float().div(255))
    assert torch.equal(found, (probability.log() + shift[:, None, None]).argmax(dim=1)[0].to(torch.uint8))


@pytest.mark.parametrize("shift", [None, torch.tensor([0.0, -1.0, 0.5, -0.2])])
def test_unsure_pixels_are_ignored(shift: Tensor | None) -> None:
    image, segment = smooth(40, 30), Softmax(Whole(Blurred()))
    options: dict[str, Any] = {"device": torch.device("cpu"), "window": 16, "overlap": 0.5, "shift": shift}
    found = labels_by_strips(image, segment, **options, min_confidence=0.8)
    scores = Sliding(segment, window=16, overlap=0.5)(image[None].float().div(255)).log()
    confidence, label = (scores + (0 if shift is None else shift[:, None, None])).softmax(dim=1)[0].max(dim=0)
    assert torch.equal(found, label.masked_fill(confidence < 0.8, 255).to(torch.uint8))
    assert 0 < (found == 255).sum() < found.numel()
    both = labels_by_strips(image, segment, **options, min_confidence=0.8, confidence=True)
    assert torch.equal(both[0], found)
    assert (both[1] - 255 * confidence).abs().max() < 0.51


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("u2pl.engine.inference.SMALL", 20 * 20)
    monkeypatch.setattr("u2pl.predictor.SMALL", 20 * 20)
    monkeypatch.setattr("u2pl.engine.inference.whole_pixels", lambda *_: 30 * 30)
    monkeypatch.setattr("u2pl.predictor.whole_pixels", lambda *_: 30 * 30)


@pytest.mark.parametrize(("side", "expected"), [(19, (19, 19)), (30, (30, 30)), (31, (16, 16))])
def test_auto_is_whole_unless_the_image_is_too_large(little_memory: None, side: int, expected: tuple[int, int]) -> None:
    network = Blurred()
    segment = inference(network, protocol="auto", window=16)
    assert isinstance(segment, Sized)
    assert segment(torch.rand(1, 3, side, side)).shape == (1, 4, side, side)
    assert network.sizes[-1] == expected


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"scales": [0.5, 1.0]}])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_predictor_gives_masks_of_large_images(little_memory: None, options: dict[str, Any], scale: float) -> None:
    network, image = Blurred(), smooth(90, 70)
    options = {"protocol": "auto", "window": 16, "overlap": 0.5, **options}
    predictor = Predictor(network, classes=("a", "b", "c", "d"), scale=scale, evaluation=options)
    seen: list[tuple[int, int]] = []
    mask = predictor.mask(image, progress=lambda done, total: seen.append((done, total)))
    assert mask.shape == (90, 70)
    assert max(network.sizes) <= (16, 16)
    assert seen[-1][0] == seen[-1][1] == len(seen)
    rest = {key: value for key, value in options.items() if key in ("flip", "scales")}
    segment = MultiScale(Softmax(inference(network, **rest)), scales=(scale,))
    expected = Sliding(segment, window=round(16 / scale), overlap=0.5)(image[None].float().div(255))
    assert torch.equal(mask, expected.argmax(dim=1)[0].to(torch.uint8))


def test_small_images_are_as_always(little_memory: None) -> None:
    predictor, image = Predictor(Blurred(), classes=("a", "b", "c", "d")), smooth(25, 30)
    assert torch.equal(predictor.mask(image), predictor(image).mask)


def test_whole_stays_whole_where_it_is_asked_for(little_memory: None) -> None:
    network = Blurred()
    Predictor(network, classes=("a", "b", "c", "d"), evaluation={"protocol": "whole"}).mask(smooth(90, 70))
    assert network.sizes == [(90, 70)]


def test_more_memory_holds_larger_images(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, network = torch.device("cpu"), Blurred()
    monkeypatch.setattr("u2pl.engine.memory.total_memory", lambda _: 2**30)
    small = whole_pixels(network, cpu)
    monkeypatch.setattr("u2pl.engine.memory.total_memory", lambda _: 2**34)
    assert 1024 < small < whole_pixels(network, cpu) // 15
    monkeypatch.setattr("u2pl.engine.memory.total_memory", lambda _: None)
    assert small < whole_pixels(network, cpu)


def test_a_container_may_have_less_memory_than_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = total_memory(torch.device("cpu"))
    assert whole is not None
    monkeypatch.setattr("u2pl.engine.memory._container_limits", lambda: iter([whole // 4]))
    assert total_memory(torch.device("cpu")) == whole // 4
