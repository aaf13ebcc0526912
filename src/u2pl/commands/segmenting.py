"""Many images through a predictor: threads read ahead of the network, and write behind it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from operator import itemgetter
from typing import Any, TypeVar

from torch import Tensor

from u2pl.commands.remedies import WHOLE_IMAGES, out_of_memory_is_bad_input
from u2pl.data.source import Sample, image_size
from u2pl.engine.ahead import ahead
from u2pl.errors import InputError
from u2pl.predictor import Predictor

_THREADS = 8  # that read, and as many that write
_PIXELS = 32 * 2**20  # of images that are read and not segmented, and of those that are not written: about 100 MB each

AnySample = TypeVar("AnySample", bound=Sample)


def segmented(
    samples: Sequence[AnySample],
    predictor: Predictor,
    write: Callable[[AnySample, Tensor, Tensor], object],
    *,
    failed: Callable[[InputError], object] | None = None,
    min_confidence: float = 0.0,
    confidence: bool = False,
) -> Generator[None, None, None]:
    """One item for each sample whose mask is written, in their order.

    Args:
        write: called in a thread with a sample, its image (3, H, W) uint8 and its mask (H, W) uint8, on the CPU.
        failed: called with the error of a sample that cannot be read, which is left out; None: the error is raised.
        min_confidence, confidence: see :meth:`u2pl.predictor.Predictor.mask`.
    """
    threads = min(_THREADS, os.cpu_count() or 1)

    def readable(images: Iterable[tuple[AnySample, Tensor | InputError]]) -> Iterator[tuple[AnySample, Tensor]]:
        for sample, image in images:
            if not isinstance(image, InputError):
                yield sample, image
            elif failed is not None:
                failed(image)
            else:
                raise image

    def during(item: tuple[AnySample, Tensor]) -> AbstractContextManager[None]:
        place = getattr(item[0], "image_path", item[0].name)
        return out_of_memory_is_bad_input(WHOLE_IMAGES, where=f" with {place}")

    def write_one(done: tuple[tuple[AnySample, Tensor], Tensor]) -> None:
        (sample, image), mask = done
        write(sample, image, mask.cpu())

    bounds: dict[str, Any] = {"threads": threads, "limit": _PIXELS}
    with closing(ahead(_read, samples, **bounds, cost=_pixels_of)) as images:
        sure: dict[str, Any] = {"min_confidence": min_confidence, "confidence": confidence}
        masks = predictor.masks_of(readable(images), image=itemgetter(1), during=during, **sure)
        with closing(ahead(write_one, masks, **bounds, cost=lambda done: done[1].numel())) as written:
            yield from written


def _read(sample: AnySample) -> tuple[AnySample, Tensor | InputError]:
    try:
        return sample, sample.image()
    except InputError as error:
        return sample, error


def _pixels_of(sample: Sample) -> int:
    """Pixels of an image, by its header if it has one; 1 if it cannot be read."""
    try:
        height, width = image_size(sample)
    except InputError:
        return 1
    return height * width
