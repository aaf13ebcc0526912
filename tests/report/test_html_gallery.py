"""The parts of a report that count pixels, against loops; and its pictures, decoded again."""

from __future__ import annotations

import base64
import io
import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from u2pl.engine.bootstrap import whole_miou
from u2pl.predictor import Prediction
from u2pl.report.html.gallery import LEVELS, data_uri, distinct, gallery, leveled, threshold, unreliable_share
from u2pl.report.html.measuring import BINS, Calibration, Shot, evenly, ranking
from u2pl.structures import IGNORE_INDEX

PALETTE = ((10, 20, 30), (200, 100, 50), (10, 20, 30), (255, 255, 255))


def shot(seed: int, height: int = 30, width: int = 40, classes: int = 4) -> Shot:
    drawn = np.random.default_rng(seed)
    truth = drawn.integers(0, classes, (height, width)).astype(np.uint8)
    truth[:2] = IGNORE_INDEX
    return Shot(
        f"image {seed}",
        10.0 * seed,
        drawn.integers(0, 256, (height, width, 3)).astype(np.uint8),
        truth,
        drawn.integers(0, classes, (height, width)).astype(np.uint8),
        drawn.random((height, width)).astype(np.float32) * math.log(classes),
    )


def decoded(uri: str) -> Image.Image:
    kind, _, data = uri.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return Image.open(io.BytesIO(base64.b64decode(data)))


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=LEVELS, max_size=LEVELS), st.integers(0, 100))
def test_the_threshold_is_the_lowest_level_that_leaves_at_most_alpha_above(pixels: list[int], percent: int) -> None:
    alpha = percent / 100
    allowed = [level for level in range(LEVELS + 1) if sum(pixels[level:]) <= alpha * sum(pixels)]
    assert threshold(pixels, alpha) == min(allowed)
    assert unreliable_share(pixels, alpha) == sum(pixels[min(allowed) :]) / max(1, sum(pixels))


def test_the_ends_of_the_slider_are_none_and_all() -> None:
    pixels = [3] * LEVELS
    assert (threshold(pixels, 0.0), unreliable_share(pixels, 0.0)) == (LEVELS, 0.0)
    assert (threshold(pixels, 1.0), unreliable_share(pixels, 1.0)) == (0, 1.0)
    assert unreliable_share([0] * LEVELS, 0.5) == 0.0


def test_levels_rise_with_the_entropy_and_divide_the_pixels_finely() -> None:
    maps = [shot(seed).entropy for seed in range(3)]
    levels, values, pixels = leveled(maps)
    pairs = sorted(
        (entropy, level)
        for one, two in zip(maps, levels, strict=True)
        for entropy, level in zip(one.ravel().tolist(), two.ravel().tolist(), strict=True)
    )
    assert all(before[1] <= after[1] for before, after in itertools.pairwise(pairs))
    for level in range(LEVELS):
        own = [entropy for entropy, each in pairs if each == level]
        assert pixels[level] == len(own)
        assert values[level] == pytest.approx(sum(own) / len(own))
    for percent in range(0, 101, 5):
        assert unreliable_share(pixels.tolist(), percent / 100) == pytest.approx(percent / 100, abs=1.5 / LEVELS)


def test_equal_entropies_have_one_level() -> None:
    half = np.zeros((4, 4), np.float32)
    half[:2] = 1.0
    levels, _, pixels = leveled([half])
    assert len({*levels[0].ravel().tolist()}) == 2
    assert sorted(pixels.tolist())[-2:] == [8, 8]
    assert leveled([])[2].sum() == 0


def test_pictures_show_the_image_its_classes_and_its_levels() -> None:
    shots = [shot(0), shot(1)]
    shown = gallery(shots, PALETTE)
    levels, _, _ = leveled([each.entropy for each in shots])
    for each, card, level in zip(shots, shown.cards, levels, strict=True):
        assert (card.name, card.width, card.height) == (each.name, 40, 30)
        assert decoded(card.image).size == (40, 30)
        assert np.array_equal(np.array(decoded(card.entropy)), level)
        colours = np.array([*shown.palette, *[(0, 0, 0)] * (255 - len(PALETTE)), (255, 255, 255)])
        for uri, classes in ((card.truth, each.truth), (card.mask, each.mask)):
            assert np.array_equal(np.array(decoded(uri).convert("RGB")), colours[classes])
    assert sum(shown.pixels) == 2 * 30 * 40
    assert shown.share(0.2) == unreliable_share(shown.pixels, 0.2)


def test_no_two_classes_share_a_colour_and_none_is_white() -> None:
    colours = distinct(PALETTE)
    assert len({*colours, (255, 255, 255)}) == len(PALETTE) + 1
    assert colours[:2] == PALETTE[:2]
    assert len(set(distinct(((0, 0, 0),) * 300))) == 300


def test_many_images_are_made_small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    shots = [shot(seed, 160, 200) for seed in range(4)]
    whole = sum(card.size for card in gallery(shots, PALETTE).cards)
    monkeypatch.setattr("u2pl.report.html.gallery._BYTES", whole // 3)
    small = gallery(shots, PALETTE)
    assert sum(card.size for card in small.cards) <= whole // 3
    assert small.cards[0].width < 200
    assert sum(small.pixels) == sum(card.width * card.height for card in small.cards)


def test_calibration_counts_the_pixels_with_a_known_class() -> None:
    drawn = torch.Generator().manual_seed(0)
    probability = (3 * torch.randn(4, 12, 15, generator=drawn)).softmax(dim=0)
    probability[:, 0, 0] = torch.tensor([1.0, 0, 0, 0])  # belongs to the last interval
    truth = torch.randint(0, 4, (12, 15), generator=drawn).to(torch.uint8)
    truth[5] = IGNORE_INDEX
    mask = probability.argmax(dim=0).to(torch.uint8)
    found = Calibration.of(Prediction(mask, probability, probability[0]), truth)
    pixels, right, sure = [0] * BINS, [0] * BINS, [0.0] * BINS
    for y in range(12):
        for x in range(15):
            if truth[y, x] != IGNORE_INDEX:
                confidence = probability[:, y, x].max().item()
                place = min(BINS - 1, int(confidence * BINS))
                pixels[place] += 1
                right[place] += int(mask[y, x] == truth[y, x])
                sure[place] += confidence
    assert (found.pixels.tolist(), found.right.tolist()) == (pixels, right)
    assert found.confidence.tolist() == pytest.approx(sure)
    error = sum(abs(s / p - r / p) * p for p, r, s in zip(pixels, right, sure, strict=True) if p) / sum(pixels)
    assert found.error() == pytest.approx(error)
    assert (found + found).pixels.tolist() == [2 * each for each in pixels]
    assert Calibration.of(Prediction(mask, probability, probability[0]), torch.full_like(truth, 255)).error() == 0


@pytest.mark.parametrize("number", [0, 1, 2, 3, 7, 8, 9, 100, 129])
def test_every_image_comes_once_and_the_first_ones_are_spread(number: int) -> None:
    order = list(evenly(number))
    assert sorted(order) == list(range(number))
    if number >= 100:
        first = sorted(order[:12])
        assert (first[0], first[-1]) == (0, number - 1)
        assert max(b - a for a, b in itertools.pairwise(first)) <= number // 4


def test_images_are_ranked_by_their_own_miou() -> None:
    drawn = random.Random(0)
    areas = torch.tensor(
        [[[drawn.randint(0, 5) for _ in range(3)], [5, 6, 7 * drawn.randint(0, 1)]] for _ in range(20)]
    )
    areas[:, 0] = torch.minimum(areas[:, 0], areas[:, 1])
    scores = [whole_miou(areas[number : number + 1]) for number in range(20)]
    assert ranking(areas) == sorted(range(20), key=lambda number: (round(scores[number], 9), number))


def test_a_shot_keeps_the_shape_of_its_image() -> None:
    small = shot(0, 100, 50).resized(20)
    assert small.truth.shape == small.mask.shape == small.entropy.shape == small.image.shape[:2] == (20, 10)
    assert set(np.unique(small.truth)) <= {0, 1, 2, 3, IGNORE_INDEX}
    assert shot(0).resized(100).image is not None
    assert shot(0).resized(100).truth.shape == (30, 40)
    assert data_uri(Image.new("L", (2, 2)), "PNG").startswith("data:image/png;base64,")
