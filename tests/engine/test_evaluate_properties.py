"""Confusion matrix, scores and sliding windows against loops."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise, product

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.engine.evaluate import Scores, evaluate
from u2pl.engine.inference import Sliding, window_starts
from u2pl.structures import IGNORE_INDEX, SegmentationOutput

FIXED = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
FABRIC = Fabric(accelerator="cpu", devices=1)
OVERLAPS = st.sampled_from(["0", "0.1", "0.25", "0.3", "0.333", "0.5", "0.7", "0.9", "0.99"])


class Reader(nn.Module):
    """Predicts the class that the first channel of an image holds."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, image: Tensor) -> SegmentationOutput:
        logits = nn.functional.one_hot(image[:, 0].long(), self.num_classes).permute(0, 3, 1, 2).float()
        return SegmentationOutput(logits, logits)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[int, list[tuple[list[list[int]], list[list[int]]]]]:
    """The number of classes, and predictions and masks of any number of small images, which may be ignored."""
    classes = draw(st.integers(1, 5))
    made = []
    for _ in range(draw(st.integers(0, 3))):
        height, width = draw(st.integers(1, 3)), draw(st.integers(1, 4))
        true = draw(st.sampled_from([[*range(classes), IGNORE_INDEX], [0, IGNORE_INDEX], [IGNORE_INDEX]]))

        def rows(values: list[int], height: int = height, width: int = width) -> list[list[int]]:
            line = st.lists(st.sampled_from(values), min_size=width, max_size=width)
            return draw(st.lists(line, min_size=height, max_size=height))

        made.append((rows(list(range(classes))), rows(true)))
    return classes, made


@given(pairs())
@settings(FIXED, max_examples=120)
def test_scores_count_pixels(drawn: tuple[int, list[tuple[list[list[int]], list[list[int]]]]]) -> None:
    classes, made = drawn
    counts = [[0] * classes for _ in range(classes)]
    for predicted, mask in made:
        for guesses, truths in zip(predicted, mask, strict=True):
            for guess, truth in zip(guesses, truths, strict=True):
                if truth != IGNORE_INDEX:
                    counts[truth][guess] += 1
    images = [(torch.tensor(p).float().expand(3, -1, -1), torch.tensor(mask)) for p, mask in made]
    confusion = evaluate(FABRIC, Reader(classes), images, classes).confusion
    assert confusion.tolist() == counts
    names = [f"class {c}" for c in range(classes)]
    scores = Scores.from_confusion(confusion, names)
    known = []
    for c, name in enumerate(names):
        hit = counts[c][c]
        union = sum(counts[c]) + sum(row[c] for row in counts) - hit
        if union == 0:
            assert scores.iou[name] is None
        else:
            known.append(100 * hit / union)
            assert scores.iou[name] == pytest.approx(known[-1])
    total = sum(map(sum, counts))
    assert scores.miou == pytest.approx(sum(known) / len(known) if known else 0.0)
    assert scores.pixel_accuracy == pytest.approx(100 * sum(counts[c][c] for c in range(classes)) / max(1, total))


@given(st.integers(1, 60), st.integers(1, 30), OVERLAPS)
@settings(FIXED, max_examples=300)
def test_windows_cover_the_side(side: int, window: int, overlap: str) -> None:
    starts = window_starts(side, window=window, overlap=float(overlap))
    covered = set()
    for start in starts:
        assert 0 <= start <= max(0, side - window)
        covered |= set(range(start, min(side, start + window)))
    assert covered == set(range(side))
    stride = max(1, math.ceil(window * (1 - Fraction(overlap))))
    steps = [after - before for before, after in pairwise(starts)]
    assert all(step == stride for step in steps[:-1])
    assert all(0 < step <= stride for step in steps[-1:])


@st.composite
def images(draw: st.DrawFn) -> Tensor:
    size = (draw(st.integers(1, 2)), 2, draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    torch.manual_seed(draw(st.integers(0, 1000)))
    return torch.rand(size)


@given(images(), st.integers(1, 6), OVERLAPS)
@settings(FIXED, max_examples=120)
def test_a_pixel_is_the_mean_of_its_windows(image: Tensor, window: int, overlap: str) -> None:
    def means(windows: Tensor) -> Tensor:
        """Each window has the same value everywhere."""
        return windows.mean(dim=(2, 3), keepdim=True).expand_as(windows)

    result = Sliding(means, window=window, overlap=float(overlap))(image)
    batch, channels, height, width = image.shape
    rows, columns = (window_starts(side, window=window, overlap=float(overlap)) for side in (height, width))
    for b, c, y, x in product(range(batch), range(channels), range(height), range(width)):
        seen = [
            float(image[b, c, top : top + window, left : left + window].mean())
            for top, left in product(rows, columns)
            if top <= y < top + window and left <= x < left + window
        ]
        assert float(result[b, c, y, x]) == pytest.approx(sum(seen) / len(seen), abs=1e-5)


@given(images(), st.integers(1, 6), OVERLAPS, st.floats(-10, 10, width=32))
@settings(FIXED, max_examples=80)
def test_constants_and_pixels_stay(image: Tensor, window: int, overlap: str, value: float) -> None:
    same = Sliding(lambda windows: torch.full_like(windows, value), window=window, overlap=float(overlap))(image)
    assert torch.allclose(same, torch.full_like(image, value), rtol=1e-5)
    assert torch.allclose(Sliding(lambda windows: windows, window=window, overlap=float(overlap))(image), image)
