"""What is known of a run before it begins: its data and its machine."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from u2pl.data.rare_classes import pixel_counts, shown_classes
from u2pl.data.source import DataSource, HasHeader, Sample
from u2pl.engine.memory import total_memory
from u2pl.errors import InputError
from u2pl.pixels.image_prior import uncommon as uncommon_classes

_LOOKED_AT = 200  # images whose sizes stand for those of all
_UNKNOWN_MEMORY = 8 * 2**30  # bytes, where a machine does not tell: that of a small one


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the rules of :mod:`u2pl.auto.rules` go by."""

    labeled: int  #: images
    unlabeled: int
    val: int
    classes: int
    height: int  #: median of the training images as they are read, pixels
    width: int
    shown: float = 0.0  #: classes that a labeled image shows, on average; 0: unknown
    uncommon: float = 0.0  #: of these, those that at most half of the labeled images show
    device: str  #: cpu, cuda or mps
    memory: int  #: of the device, bytes
    host_memory: int
    cores: int  #: for this process
    processes: int

    @property
    def images(self) -> int:
        """For training: as many, however many of them are labeled."""
        return self.labeled + self.unlabeled


def facts_of(source: DataSource, *, device: torch.device, processes: int) -> Facts:
    """Look at a data set and a machine. Raises InputError for an image that cannot be read, or where there is none."""
    height, width = typical_size([*source.labeled, *source.unlabeled])
    shown, uncommon = classes_shown(source)
    return Facts(
        labeled=len(source.labeled),
        unlabeled=len(source.unlabeled),
        val=len(source.val),
        classes=len(source.classes),
        height=height,
        width=width,
        shown=shown,
        uncommon=uncommon,
        device=device.type,
        memory=total_memory(device) or _UNKNOWN_MEMORY,
        host_memory=total_memory(torch.device("cpu")) or _UNKNOWN_MEMORY,
        cores=_cores(),
        processes=processes,
    )


def typical_size(samples: Sequence[Sample]) -> tuple[int, int]:
    """Median height and width of images spread evenly over all by name: the same whichever of them are labeled."""
    if not samples:
        raise InputError("there is no image to train on; add some to the data set")
    by_name = sorted(samples, key=lambda sample: sample.name)
    sizes = [_size(sample) for sample in by_name[:: -(-len(by_name) // _LOOKED_AT)]]
    heights, widths = zip(*sizes, strict=True)
    return statistics.median_low(heights), statistics.median_low(widths)


def classes_shown(source: DataSource) -> tuple[float, float]:
    """Classes that a labeled image shows, and uncommon ones of these, on average over images spread evenly over all.

    Masks that cannot be read are left out: they are told when the data are verified. Zero where none can be.
    """
    rows = []
    for sample in source.labeled[:: -(-len(source.labeled) // _LOOKED_AT) or 1]:
        with suppress(InputError):
            rows.append(shown_classes(pixel_counts([sample]))[0, : len(source.classes)])
    if not rows:
        return 0.0, 0.0
    shown = torch.from_numpy(np.stack(rows))
    rare = shown & uncommon_classes(shown)
    return shown.sum(dim=1).float().mean().item(), rare.sum(dim=1).float().mean().item()


def _size(sample: Sample) -> tuple[int, int]:
    """(H, W), from the header alone where the sample can."""
    if isinstance(sample, HasHeader):
        return sample.image_size()
    height, width = sample.image().shape[-2:]
    return height, width


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
