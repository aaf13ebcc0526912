"""A look at an image is what slow code finds in the network's output and in its encoder's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.labelling.looking import DescribedSegment, LookingPredictor
from u2pl.labelling.ranking import BINS
from u2pl.predictor import Predictor

Weights = Callable[..., Path]
SIZES = [(40, 56), (64, 48), (40, 56), (33, 71), (64, 48)]


def images(number: int = 5) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    coarse = [torch.randint(0, 256, (1, 3, 5, 6), generator=draw).float() for _ in range(number)]
    return [F.interpolate(each, size=SIZES[n % 5], mode="bilinear")[0].byte() for n, each in enumerate(coarse)]


@pytest.fixture(params=[1, 3])
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("network", "options"), [("deeplab", {"scale": 0.5}), ("fpn", {}), ("fpn", {"evaluation": {"flip": True}})]
)
def test_a_look_is_that_of_slow_code(weights: Weights, cores: int, network: str, options: dict[str, Any]) -> None:
    path = weights(network, **options)
    predictor, plain = LookingPredictor.load(path), Predictor.load(path)
    net: Any = plain.network
    seen = list(predictor.looks_of(enumerate(images()), lambda item: item[1]))
    assert [number for (number, _), _ in seen] == list(range(5))
    for (_, image), look in seen:
        prediction = plain(image)
        assert look.entropy == pytest.approx(float(prediction.entropy.mean()), abs=1e-5)
        clear = torch.zeros(3, BINS)
        for label, entropy in zip(prediction.mask.flatten().tolist(), prediction.entropy.flatten(), strict=True):
            clear[label, int((entropy >= predictor.edges).sum())] += 1 / prediction.mask.numel()
        assert float((look.histogram - clear).abs().sum()) < 0.02  # a few pixels on an edge are rounded otherwise
        assert float(look.histogram.sum()) == pytest.approx(1.0)
        pixels = image[None].float() / 255
        if plain.scale != 1:
            size = [round(side * plain.scale) for side in image.shape[-2:]]
            pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
        with torch.no_grad():
            views = [pixels, pixels.flip(-1)] if "evaluation" in options else [pixels]
            rows = [net.last_features(net.encode(view)).mean(dim=(2, 3))[0] for view in views]
        torch.testing.assert_close(look.embedding, torch.stack(rows).mean(dim=0), atol=1e-4, rtol=1e-3)
        assert not look.embedding.requires_grad


def test_the_embedding_of_windows_belongs_to_its_image(weights: Weights) -> None:
    """Of a batch, as on an accelerator: windows of all images go through the network together."""
    predictor = LookingPredictor.from_file(
        weights("deeplab"), overrides=["evaluation.protocol=sliding", "evaluation.window=32", "evaluation.overlap=0"]
    )
    net: Any = predictor.network
    batch = torch.stack([image for image in images() if image.shape[-2:] == (64, 48)]).float() / 255
    segment = DescribedSegment(predictor.inference, net)
    with torch.no_grad():
        segment(batch.flip(0))  # rows of an earlier call do not count
        segment(batch)
        found = segment.embedding(len(batch))
        for image, row in zip(batch, found, strict=True):
            windows = [image[:, y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 16)]
            expected = torch.stack([net.last_features(net.encode(each[None])).mean(dim=(2, 3))[0] for each in windows])
            torch.testing.assert_close(row, expected.mean(dim=0), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_padding_is_no_feature(weights: Weights) -> None:
    net: Any = LookingPredictor.load(weights("fpn")).network
    net.minimum = 128
    encoded = net.encode(torch.rand(2, 3, 33, 71))
    assert encoded.features[-1].shape[-2:] == (4, 4)
    assert torch.equal(net.last_features(encoded), encoded.features[-1][..., :2, :3])


def test_a_network_without_an_encoder_is_refused() -> None:
    with pytest.raises(TypeError, match="Linear has no encoder"):
        DescribedSegment(lambda network: network, nn.Linear(2, 2))


@pytest.mark.parametrize("gamma", [0.0, None, 9.0])
def test_a_draft_is_the_mask_where_the_network_is_sure(weights: Weights, cores: int, gamma: float | None) -> None:
    path = weights("deeplab")
    predictor, plain = LookingPredictor.load(path), Predictor.load(path)
    if gamma is None:
        gamma = float(torch.cat([plain(image).entropy.flatten() for image in images()]).median())
    unsure = 0
    for (_, image), draft in predictor.drafts_of(enumerate(images()), lambda item: item[1], gamma=gamma):
        prediction = plain(image)
        expected = prediction.mask.clone()
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                if prediction.entropy[y, x] >= gamma:
                    expected[y, x] = 255
        assert draft.mask.dtype == torch.uint8
        assert float((draft.mask != expected).float().mean()) < 0.002
        assert torch.equal(draft.image, image)
        unsure += int((draft.mask == 255).sum())
    total = sum(height * width for height, width in SIZES)
    assert (unsure == 0) == (gamma == 9.0)
    assert (unsure == total) == (gamma == 0.0)


def test_an_image_that_does_not_fit_is_seen_smaller(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = LookingPredictor.load(weights("deeplab", evaluation={"protocol": "auto"}))
    for module in ("u2pl.predictor", "u2pl.labelling.looking"):
        monkeypatch.setattr(f"{module}.SMALL", 1000)
        monkeypatch.setattr(f"{module}.whole_pixels", lambda *_: 1000)
    seen = []
    scores = predictor._scores
    monkeypatch.setattr(predictor, "_scores", lambda s, some: seen.append(some[0].shape[-2:]) or scores(s, some))
    image = images(1)[0]  # 40 x 56
    (_, draft), *others = predictor.drafts_of([image], lambda item: item, gamma=9.0)
    assert not others
    assert seen == [(26, 37)]
    assert draft.mask.shape == (40, 56)
    small = predictor(F.interpolate(image[None], size=(26, 37), mode="bilinear", antialias=True)[0]).mask
    assert torch.equal(draft.mask, F.interpolate(small[None, None], size=(40, 56))[0, 0])
    ((_, look),) = predictor.looks_of([image], lambda item: item)
    assert look.entropy > 0


def test_closing_leaves_no_thread(weights: Weights) -> None:
    before = threading.active_count()
    torch.set_num_threads(2)
    try:
        predictor = LookingPredictor.load(weights("fpn"))
        found = predictor.looks_of(images(), lambda item: item)
        next(found)
        found.close()
    finally:
        torch.set_num_threads(1)
    assert threading.active_count() == before
