"""What a trained network does on validation images: predictions, a confusion matrix, and its calibration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from u2pl.data.source import Sample
from u2pl.engine.bootstrap import whole_miou
from u2pl.engine.evaluate import areas_of, count
from u2pl.errors import InputError
from u2pl.predictor import Prediction, Predictor
from u2pl.structures import IGNORE_INDEX

BINS = 10  #: of confidence
FEWEST = 6  #: images that are predicted, however long they take
SIDE = 320  #: pixels of the longer side of a kept picture

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shot:
    """One validation image with its prediction, small."""

    name: str
    score: float  #: mIoU of this image in percent
    image: Pixels  #: (H, W, 3) RGB
    truth: Pixels  #: (H, W), class index or IGNORE_INDEX
    mask: Pixels  #: (H, W), class index
    entropy: npt.NDArray[np.float32]  #: (H, W), nats

    def resized(self, side: int) -> Shot:
        """A copy whose longer side has at most this many pixels. Masks and entropies are those of the nearest pixel."""
        height, width = self.truth.shape
        factor = min(1.0, side / max(height, width))
        size = max(1, round(width * factor)), max(1, round(height * factor))
        if size == (width, height):
            return self
        nearest = Image.Resampling.NEAREST
        return Shot(
            self.name,
            self.score,
            np.array(Image.fromarray(self.image).resize(size, Image.Resampling.BILINEAR)),
            np.array(Image.fromarray(self.truth).resize(size, nearest)),
            np.array(Image.fromarray(self.mask).resize(size, nearest)),
            np.array(Image.fromarray(self.entropy).resize(size, nearest)),
        )


@dataclass(frozen=True)
class Calibration:
    """Pixels by the probability of their most likely class, in ``BINS`` equal intervals."""

    pixels: Tensor  #: (BINS,) int64
    right: Tensor  #: (BINS,) int64, pixels whose most likely class is the true one
    confidence: Tensor  #: (BINS,) float64, sum of the probabilities

    @classmethod
    def of(cls, prediction: Prediction, truth: Tensor) -> Calibration:
        """The pixels of one image whose true class (H, W) is known."""
        known = truth != IGNORE_INDEX
        sure = prediction.probability.amax(dim=0)[known].double()
        place = (sure * BINS).long().clamp(max=BINS - 1)
        right = place[(prediction.mask == truth)[known]]
        return cls(
            torch.bincount(place, minlength=BINS),
            torch.bincount(right, minlength=BINS),
            torch.bincount(place, weights=sure, minlength=BINS),
        )

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(self.pixels + other.pixels, self.right + other.right, self.confidence + other.confidence)

    def points(self) -> list[tuple[float, float, int]]:
        """Mean confidence, accuracy and number of pixels of each interval that has some."""
        rows = zip(self.pixels.tolist(), self.right.tolist(), self.confidence.tolist(), strict=True)
        return [(sure / number, right / number, number) for number, right, sure in rows if number]

    def error(self) -> float:
        """The expected calibration error (Guo et al. 2017): mean distance of confidence and accuracy, from 0 to 1."""
        total = max(1, int(self.pixels.sum()))
        return sum(abs(sure - right) * number for sure, right, number in self.points()) / total


@dataclass(frozen=True)
class Measured:
    """Predictions of validation images."""

    shots: Sequence[Shot]  #: the worst first
    confusion: Tensor  #: (C, C) int64, by true class (row) and predicted class
    calibration: Calibration
    unreadable: Sequence[str]  #: why other images are left out, one line each
    images: int  #: that were predicted and counted, at least as many as the shots


def measure(
    predictor: Predictor,
    samples: Sequence[Sample],
    ranked: Sequence[int],
    *,
    most: int,
    seconds: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Predict some of the samples: evenly spread over their ranks, as many as the time and ``most`` allow.

    Images without a pixel of a known class are left out: they have no score.

    Args:
        predictor: for images as the samples give them.
        ranked: numbers of samples, the worst first.
        most: images at most.
        seconds: after this time no further image begins, once there are ``FEWEST``.
        progress: called with (images done, images at most).
    """
    classes = len(predictor.classes)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    nothing = torch.zeros(BINS, dtype=torch.int64)
    calibration = Calibration(nothing, nothing, nothing.double())
    shots: list[Shot] = []
    unreadable: list[str] = []
    end, total = time.monotonic() + seconds, min(most, len(samples))
    for place in evenly(len(ranked)):
        if len(shots) >= total or (len(shots) >= FEWEST and time.monotonic() > end):
            break
        sample = samples[ranked[place]]
        try:
            image, truth = sample.image(), sample.mask()
        except InputError as error:
            unreadable.append(str(error))
            continue
        if not (truth != IGNORE_INDEX).any():
            continue
        prediction = predictor(image)
        counts = count(truth, prediction.mask, classes)
        confusion += counts
        calibration += Calibration.of(prediction, truth)
        score = whole_miou(areas_of(counts).unsqueeze(0))
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        whole = Shot(sample.name, score, pixels, truth.numpy(), prediction.mask.numpy(), prediction.entropy.numpy())
        shots.append(whole.resized(SIDE))
        progress(len(shots), total)
    return Measured(sorted(shots, key=lambda shot: shot.score), confusion, calibration, unreadable, len(shots))


def evenly(number: int) -> Iterator[int]:
    """The first and the last of a range, then the others: however early one stops, those so far are evenly spread."""
    bits = max(1, (number - 1).bit_length())
    yield from dict.fromkeys((0, number - 1) if number else ())
    for place in range(2**bits):
        turned = int(f"{place:0{bits}b}"[::-1], 2)
        if 0 < turned < number - 1:
            yield turned


def ranking(areas: Tensor) -> list[int]:
    """Numbers of images by their own mIoU, the worst first.

    Args:
        areas: (N, 2, C) int64, intersection and union of each image and class.
    """
    hit, union = areas.double().unbind(dim=1)
    scores = (hit / union.clamp(min=1)).sum(dim=1) / (union > 0).sum(dim=1).clamp(min=1)
    return scores.argsort(stable=True).tolist()
