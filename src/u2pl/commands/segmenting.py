"""Many images through a predictor: threads read ahead of the network, and write behind it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
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

    def write_one(done: tuple[tuple[AnySample, Tensor], Tensor]) -> None:
        (sample, image), mask = done
        write(sample, image, mask.cpu())

    with closing(read_ahead(samples, failed=failed)) as images:
        sure: dict[str, Any] = {"min_confidence": min_confidence, "confidence": confidence}
        masks = predictor.masks_of(images, image=itemgetter(1), during=memory_for, **sure)
        with closing(ahead(write_one, masks, **_bounds(), cost=lambda done: done[1].numel())) as written:
            yield from written


def read_ahead(
    samples: Sequence[AnySample], *, failed: Callable[[InputError], object] | None = None
) -> Generator[tuple[AnySample, Tensor], None, None]:
    """Samples, each with its image (3, H, W) uint8. Threads read them ahead.

    Args:
        failed: called with the error of a sample that cannot be read, which is left out; None: the error is raised.
    """
    with closing(ahead(_read, samples, **_bounds(), cost=_pixels_of)) as images:
        for sample, image in images:
            if not isinstance(image, InputError):
                yield sample, image
            elif failed is not None:
                failed(image)
            else:
                raise image


def memory_for(item: tuple[Sample, Tensor]) -> AbstractContextManager[None]:
    """A context in which too little memory for the image of a sample is an InputError that names it."""
    place = getattr(item[0], "image_path", item[0].name)
    return out_of_memory_is_bad_input(WHOLE_IMAGES, where=f" with {place}")


def _bounds() -> dict[str, Any]:
    return {"threads": min(_THREADS, os.cpu_count() or 1), "limit": _PIXELS}


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
