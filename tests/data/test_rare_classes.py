import math
import random
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from u2pl.data.batches import Batches
from u2pl.data.rare_classes import MIN_SHARE, RareClassesOfDomains, RareClassSampling, pixel_counts
from u2pl.data.transforms import LabeledTransform, UnlabeledTransform
from u2pl.errors import InputError


@dataclass(frozen=True)
class Written:
    """A sample whose mask is written out; the image is its number."""

    number: int
    rows: tuple[tuple[int, ...], ...]
    has_mask: bool = True
    tags: None = None

    @property
    def name(self) -> str:
        return str(self.number)

    def image(self) -> Tensor:
        return torch.full((3, len(self.rows), len(self.rows[0])), self.number, dtype=torch.uint8)

    def mask(self) -> Tensor:
        return torch.tensor(self.rows, dtype=torch.uint8)


def samples(count: int = 12, side: int = 20, seed: int = 0) -> list[Written]:
    """Class 0 everywhere, 1 in half of the masks, 2 in a corner of few, 3 in a pixel of one, and some of 255."""
    generator = random.Random(seed)
    made = []
    for number in range(count):
        rows = [[0] * side for _ in range(side)]
        rows[0] = [255] * side
        for row in range(1, side if number % 2 else 1):
            rows[row][: side // 3] = [1] * (side // 3)
        if number % 5 == 0:
            for row in range(2, 6):
                rows[row][-4:] = [2] * 4
        if number == 7:
            rows[generator.randrange(1, side)][-1] = 3
        made.append(Written(number, tuple(map(tuple, rows))))
    return made


def by_hand(masks: list[Written], temperature: float, classes: int = 4) -> tuple[dict[int, float], dict[int, set[int]]]:
    """Probability of each class, and the images that hold it: pixel by pixel."""
    counts = [Counter(value for row in each.rows for value in row) for each in masks]
    pixels = [sum(len(row) for row in each.rows) for each in masks]
    total = sum(sum(count[index] for count in counts) for index in range(classes))
    share = {index: sum(count[index] for count in counts) / total for index in range(classes)}
    weight = {index: math.exp((1 - value) / temperature) for index, value in share.items() if value > 0}
    probability = {index: value / sum(weight.values()) for index, value in weight.items()}
    holders = {}
    for index in weight:
        held = {n for n, count in enumerate(counts) if count[index] >= max(1, MIN_SHARE * pixels[n])}
        holders[index] = held or {n for n, count in enumerate(counts) if count[index]}
    return probability, holders


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0, 100.0])
def test_frequencies_and_probabilities(temperature):
    masks = samples()
    sampling = RareClassSampling(pixel_counts(masks), temperature=temperature)
    probability, holders = by_hand(masks, temperature)
    assert dict(zip(sampling.classes.tolist(), sampling.probability.tolist(), strict=True)) == pytest.approx(
        probability
    )
    assert {index: set(each.tolist()) for index, each in sampling.holders.items()} == holders


def test_a_class_in_too_few_pixels_everywhere_still_has_images():
    rows = [[0] * 60 for _ in range(60)]
    rows[3][4] = 1  # 1 of 3600, less than MIN_SHARE
    masks = [Written(0, tuple(map(tuple, rows))), Written(1, ((0,) * 60,) * 60)]
    assert RareClassSampling(pixel_counts(masks)).holders[1].tolist() == [0]
    many = [*masks, Written(2, ((0, 1),) * 60)]
    assert RareClassSampling(pixel_counts(many)).holders[1].tolist() == [2]  # one that shows enough of it is preferred


def test_a_temperature_near_zero_takes_the_rarest_and_a_high_one_any():
    counts = pixel_counts(samples())
    cold, hot = (RareClassSampling(counts, temperature=temperature).probability for temperature in (1e-5, 1e5))
    assert cold.tolist() == [0, 0, 0, 1]
    assert hot == pytest.approx([0.25] * 4, abs=1e-4)


def test_draws_follow_the_probabilities():
    masks = samples()
    sampling = RareClassSampling(pixel_counts(masks), temperature=0.3)
    probability, holders = by_hand(masks, 0.3)
    drawn = [pair for seed in range(400) for pair in sampling.draw(10, seed)]
    seen = Counter(index for _, index in drawn)
    for index, expected in probability.items():
        assert seen[index] / len(drawn) == pytest.approx(expected, abs=4 * math.sqrt(expected / len(drawn)))
        images = Counter(image for image, each in drawn if each == index)
        assert set(images) == holders[index]
        uniform = seen[index] / len(holders[index])
        assert all(abs(count - uniform) < 5 * math.sqrt(uniform) for count in images.values())


def test_nothing_to_draw_by():
    with pytest.raises(InputError, match="ignored"):
        RareClassSampling(pixel_counts([Written(0, ((255, 255),))]))


def test_progress():
    calls = []
    counts = pixel_counts(samples(5), lambda done, total: calls.append((done, total)))
    assert calls == [(index, 5) for index in range(1, 6)]
    for row, sample in zip(counts, samples(5), strict=True):
        assert row.tolist() == [sum(line.count(value) for line in sample.rows) for value in range(256)]


def batches(masks: list[Written], **options) -> Batches:
    given = {"crop_size": 16, "scale": (1.0, 1.0)}
    return Batches(
        **{
            "labeled": masks,
            "unlabeled": [Written(100, masks[0].rows)],
            "labeled_transform": LabeledTransform(**given),
            "unlabeled_transform": UnlabeledTransform(**given),
            "batch_size": 4,
            "steps": 60,
            "seed": 3,
            "rare_classes": RareClassSampling(pixel_counts(masks), temperature=0.3),
            **options,
        }
    )


def test_a_batch_is_still_a_function_of_seed_step_and_rank():
    masks = samples()
    first, second = batches(masks), batches(masks)
    forwards = [first[step] for step in range(8)]
    for step in (5, 1, 7, 0):
        again = second[step]
        assert torch.equal(again.image, forwards[step].image)
        assert torch.equal(again.label, forwards[step].label)
        assert torch.equal(again.unlabeled, forwards[step].unlabeled)
        assert first.indices(step) == second.indices(step)
    drawn = {tuple(batches(masks, **options).indices(0)[0]) for options in ({}, {"rank": 1}, {"rank": 2}, {"seed": 4})}
    assert len(drawn) == 4
    assert first.indices(0)[0] != first.indices(1)[0]


def test_images_are_those_drawn_and_the_unlabeled_half_is_unchanged():
    masks = samples()
    drawn, plain = batches(masks), batches(masks, rare_classes=None)
    assert drawn.indices(3)[1] == plain.indices(3)[1]
    assert drawn[3].image[:, 0, 0, 0].tolist() == drawn.indices(3)[0]


def test_crops_show_what_they_were_drawn_for():
    """A 16-pixel crop of 60 shows a corner in one of about eight trials: more trials, more corners."""
    rows = [[0] * 60 for _ in range(60)]
    for row in range(6):
        rows[row][:6] = [1] * 6
    masks = [Written(0, tuple(map(tuple, rows)))]
    shown = {
        name: np.mean(
            [bool((batches(masks, steps=150, batch_size=1, **options)[step].label == 1).any()) for step in range(150)]
        )
        for name, options in {"plain": {"rare_classes": None}, "rare": {}}.items()
    }
    assert shown["plain"] < 0.25
    assert shown["rare"] > shown["plain"] + 0.15


def test_half_of_the_draws_are_of_the_target():
    """Each domain by its own sampler; the images of the target come last."""
    masks = samples(8)
    of = [RareClassSampling(pixel_counts(part), temperature=0.3) for part in (masks[:6], masks[6:])]
    both = RareClassesOfDomains(*of, images=6)
    assert both.draw(5, 11) == both.draw(5, 11)
    for count in (2, 4, 9):
        drawn = [both.draw(count, seed) for seed in range(400)]
        assert {len(each) for each in drawn} == {count}
        own = [sum(index >= 6 for index, _ in each) for each in drawn]
        assert {*own} == {count // 2, (count + 1) // 2}
        assert np.mean(own) == pytest.approx(count / 2, abs=0.1)
    for index, drawn_for in both.draw(200, 0):
        assert (pixel_counts([masks[index]])[0, drawn_for]) > 0
    assert [pair for pair in both.draw(8, 4) if pair[0] < 6] == of[0].draw(4, 4)
