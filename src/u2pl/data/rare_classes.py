"""Rare-class sampling of labeled images (DAFormer, Hoyer et al. 2022, arXiv 2111.14887, equations 9 and 10)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from u2pl.data.source import Sample
from u2pl.errors import InputError
from u2pl.structures import IGNORE_INDEX, Above0, Share

#: An image holds a class that covers at least this share of it: DAFormer's 3000 pixels of 1914 x 1052.
MIN_SHARE = 0.0015


class RareClassSampling:
    """Draws a class, rare ones more often, then one of the images that hold it.

    Class c, with the share f_c of the labeled pixels, is drawn with probability ``softmax((1 - f_c) / temperature)``
    among the classes that have a pixel; then the image uniformly among those of which c covers ``min_share`` or, if
    there are none, among those that show it at all.

    Args:
        pixels: (N, 256), how many pixels of each mask hold each value; IGNORE_INDEX is no class.
        temperature: the lower, the more often the rarest classes are drawn; at 1 all are nearly alike.
        min_share: share of an image that a class covers at least, where there is such an image.
    """

    def __init__(
        self, pixels: npt.NDArray[np.int64], *, temperature: Above0 = 0.01, min_share: Share = MIN_SHARE
    ) -> None:
        counts = pixels[:, :IGNORE_INDEX]
        total = counts.sum(axis=0)
        self.classes = np.flatnonzero(total)
        if not self.classes.size:
            raise InputError("data.rare_class_sampling: every pixel of the labeled masks is ignored; label some")
        logits = (1 - total[self.classes] / total.sum()) / temperature
        weights = np.exp(logits - logits.max())
        self.probability = weights / weights.sum()  #: of :attr:`classes`
        holds = shown_classes(pixels, min_share=min_share)
        self.holders = {
            int(index): np.flatnonzero(holds[:, index] if holds[:, index].any() else counts[:, index])
            for index in self.classes
        }

    def draw(self, count: int, seed: int) -> list[tuple[int, int]]:
        """``count`` pairs of an image's index and the class it was drawn for; a function of the seed alone."""
        random = np.random.Generator(np.random.PCG64(seed))
        chosen = random.choice(self.classes, size=count, p=self.probability)
        return [(int(random.choice(self.holders[int(index)])), int(index)) for index in chosen]


def shown_classes(pixels: npt.NDArray[np.int64], *, min_share: float = MIN_SHARE) -> npt.NDArray[np.bool_]:
    """(N, 255) bool: the classes that cover this share of an image, and a pixel; of (N, 256) :func:`pixel_counts`."""
    return pixels[:, :IGNORE_INDEX] >= np.maximum(1, min_share * pixels.sum(axis=1, keepdims=True))


def pixel_counts(
    samples: Sequence[Sample], progress: Callable[[int, int], None] | None = None
) -> npt.NDArray[np.int64]:
    """(N, 256) pixels of each value in the mask of each sample; ``progress`` is called with (done, in all)."""
    counts = np.zeros((len(samples), 256), dtype=np.int64)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        masks = threads.map(lambda sample: np.bincount(sample.mask().numpy().ravel(), minlength=256), samples)
        for index, row in enumerate(masks):
            counts[index] = row
            if progress is not None:
                progress(index + 1, len(samples))
    return counts
