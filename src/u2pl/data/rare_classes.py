"""Rare-class sampling of labeled images (DAFormer, Hoyer et al. 2022, arXiv 2111.14887, equations 9 and 10)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt

from u2pl.data.source import Sample
from u2pl.errors import InputError
from u2pl.structures import IGNORE_INDEX, Share, Temperature

#: An image shows a class that covers at least this share of it: DAFormer's 3000 of 1914 x 1052 pixels.
MIN_SHARE = 0.0015


class DrawsByClass(Protocol):
    """Draws labeled images by class: :class:`RareClassSampling`, or one of two domains."""

    def draw(self, count: int, seed: int) -> list[tuple[int, int]]:
        """``count`` pairs (image index, class that it was drawn for). They depend only on the seed."""


class RareClassSampling:
    """Draw a class, rare classes more often, then an image that shows it.

    Class c has the share f_c of the labeled pixels. It is drawn with probability ``softmax((1 - f_c) / temperature)``
    over the classes with at least one pixel. The image is drawn uniformly among those in which c covers ``min_share``.
    If there are none, any image with a pixel of c can be drawn.

    Args:
        pixels: (N, 256), the number of pixels of each value in each mask; IGNORE_INDEX is not a class.
        temperature: a lower value draws rare classes more often; at 1 all classes are almost equally likely.
        min_share: share of an image that the drawn class must cover; one pixel is enough if no image reaches it.
    """

    def __init__(
        self, pixels: npt.NDArray[np.int64], *, temperature: Temperature = 0.01, min_share: Share = MIN_SHARE
    ) -> None:
        counts = pixels[:, :IGNORE_INDEX]
        total = counts.sum(axis=0)
        self.classes = np.flatnonzero(total)
        if not self.classes.size:
            raise InputError("data.rare_class_sampling: every pixel of the labeled masks is ignored; label some")
        logits = (1 - total[self.classes] / total.sum()) / temperature
        weights = np.exp(logits - logits.max())
        self.probability = weights / weights.sum()  #: one for each of :attr:`classes`
        holds = shown_classes(pixels, min_share=min_share)
        self.holders = {
            int(index): np.flatnonzero(holds[:, index] if holds[:, index].any() else counts[:, index])
            for index in self.classes
        }

    def draw(self, count: int, seed: int) -> list[tuple[int, int]]:
        """``count`` pairs (image index, class that it was drawn for). They depend only on the seed."""
        random = np.random.Generator(np.random.PCG64(seed))
        chosen = random.choice(self.classes, size=count, p=self.probability)
        return [(int(random.choice(self.holders[int(index)])), int(index)) for index in chosen]


class RareClassesOfDomains:
    """Draw half of the labeled images from the source, half from the target, each by its own classes.

    Of an odd number, the seed decides which domain gives one more.

    Args:
        source, target: the samplers of both. Images of the target come after the ``images`` of the source.
    """

    def __init__(self, source: RareClassSampling, target: RareClassSampling, *, images: int) -> None:
        self.source, self.target, self.images = source, target, images

    def draw(self, count: int, seed: int) -> list[tuple[int, int]]:
        """See :class:`DrawsByClass`."""
        own = (count + seed % 2) // 2
        of_target = self.target.draw(own, seed ^ 1)  # its own random numbers
        return [
            *self.source.draw(count - own, seed),
            *((self.images + index, drawn_for) for index, drawn_for in of_target),
        ]


def shown_classes(pixels: npt.NDArray[np.int64], *, min_share: float = MIN_SHARE) -> npt.NDArray[np.bool_]:
    """(N, 256) :func:`pixel_counts` -> (N, 255) bool: the classes that cover ``min_share`` and at least one pixel."""
    return pixels[:, :IGNORE_INDEX] >= np.maximum(1, min_share * pixels.sum(axis=1, keepdims=True))


def pixel_counts(
    samples: Sequence[Sample], progress: Callable[[int, int], None] | None = None
) -> npt.NDArray[np.int64]:
    """(N, 256) pixels of each value in each sample's mask. Calls ``progress`` with (samples done, samples in total)."""
    counts = np.zeros((len(samples), 256), dtype=np.int64)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        masks = threads.map(lambda sample: np.bincount(sample.mask().numpy().ravel(), minlength=256), samples)
        for index, row in enumerate(masks):
            counts[index] = row
            if progress is not None:
                progress(index + 1, len(samples))
    return counts
