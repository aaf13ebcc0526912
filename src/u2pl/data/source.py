"""The interface of every data source: three lists of samples, and the class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor


class Sample(Protocol):
    """One image, read on demand. Samples are small and picklable, so that data loader processes can use them."""

    @property
    def name(self) -> str:
        """Stem that identifies the image within its data set."""

    @property
    def has_mask(self) -> bool:
        """Whether :meth:`mask` can be read."""

    @property
    def tags(self) -> frozenset[int] | None:
        """Classes that the image is known to show; the background (0) is optional. None: unknown."""

    def image(self) -> Tensor:
        """(3, H, W) uint8 RGB. Raises :class:`~u2pl.errors.InputError` naming the file if it cannot be read."""

    def mask(self) -> Tensor:
        """(H, W) uint8 class indices; 255 is ignored.

        Raises :class:`~u2pl.errors.InputError` naming the file if it is missing, unreadable, RGB, differs in size from
        its image, or holds a value >= the number of classes.
        """


@runtime_checkable
class HasHeader(Protocol):
    """A sample that can give the size of its image without decoding it."""

    def image_size(self) -> tuple[int, int]:
        """(H, W) of the image. Raises :class:`~u2pl.errors.InputError` naming the file if it cannot be read."""


@runtime_checkable
class HasNotes(Protocol):
    """A sample that may have something to say about its files."""

    def notes(self) -> tuple[str, ...]:
        """One line each. Raises :class:`~u2pl.errors.InputError` naming a file that cannot be read."""


def image_size(sample: Sample) -> tuple[int, int]:
    """(H, W) of the image, which is decoded unless the sample is a :class:`HasHeader`."""
    if isinstance(sample, HasHeader):
        return sample.image_size()
    height, width = sample.image().shape[-2:]
    return height, width


@dataclass(frozen=True)
class DataSource:
    """A data set, split for label-efficient training."""

    classes: tuple[str, ...]
    labeled: Sequence[Sample]  #: training reads their masks
    unlabeled: Sequence[Sample]  #: training never uses their masks; a diagnosis reads those that exist
    val: Sequence[Sample]  #: validation reads their masks; may be empty
    palette: tuple[tuple[int, int, int], ...] = field(default=())  #: RGB per class; empty: a default palette is used
    notes: tuple[str, ...] = ()  #: notes of the reader on problems and omissions, one line each
    facts: tuple[str, ...] = ()  #: what the reader did that is no problem, one line each
    #: What to do if masks show few of the classes, for layouts whose classes are given.
    few_classes: str = ""
    target_labeled: int = 0  #: with two domains: how many of ``labeled``, the last ones, are of the target
    #: The unlabeled samples with masks that a trained network has drawn. Training reads these masks; empty: none.
    pseudo: Sequence[Sample] = ()
    lookup: tuple[int, ...] | None = None  #: raw mask value -> class index or 255; None: masks hold class indices
    #: Number of the group of each validation image; those of one group are alike. Empty: each image is by itself.
    val_groups: tuple[int, ...] = ()
