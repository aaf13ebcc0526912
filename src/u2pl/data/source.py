"""What every source of data offers: samples that can be read, in three lists, with the names of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor


class Sample(Protocol):
    """One image, read when asked for. Samples are small and picklable: data loader processes carry them."""

    @property
    def name(self) -> str:
        """Stem that names the image within its data set."""

    @property
    def has_mask(self) -> bool:
        """Whether :meth:`mask` can be read."""

    @property
    def tags(self) -> frozenset[int] | None:
        """Classes that the image is known to show, the background (0) with or without; None: nothing is known."""

    def image(self) -> Tensor:
        """(3, H, W) uint8 RGB. Raises :class:`~u2pl.errors.InputError` naming the file when it cannot be read."""

    def mask(self) -> Tensor:
        """(H, W) uint8 class indices, 255 is ignored. Raises :class:`~u2pl.errors.InputError` naming the file when
        it is missing, unreadable, RGB, of another size than its image, or holds a value >= the number of classes."""


@runtime_checkable
class HasHeader(Protocol):
    """A sample that may know the size of its image without decoding it."""

    def image_size(self) -> tuple[int, int]:
        """(H, W) of the image. Raises :class:`~u2pl.errors.InputError` naming the file when it cannot be read."""


def image_size(sample: Sample) -> tuple[int, int]:
    """(H, W) of the image, which is decoded for it unless the sample knows better."""
    if isinstance(sample, HasHeader):
        return sample.image_size()
    height, width = sample.image().shape[-2:]
    return height, width


@dataclass(frozen=True)
class DataSource:
    """A data set split for label-efficient training."""

    classes: tuple[str, ...]
    labeled: Sequence[Sample]  #: masks are read
    unlabeled: Sequence[Sample]  #: masks never train, whether there are any or not; a diagnosis reads them
    val: Sequence[Sample]  #: masks are read; may be empty
    palette: tuple[tuple[int, int, int], ...] = field(default=())  #: RGB per class; empty: a default one is used
    notes: tuple[str, ...] = ()  #: what the reader noticed and left aside, one line each
    lookup: tuple[int, ...] | None = None  #: raw mask value -> class index or 255; None: masks hold class indices
