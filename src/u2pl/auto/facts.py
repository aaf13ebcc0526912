"""Facts of a run that are known before it begins: its data and its machine."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from u2pl.data.rare_classes import pixel_counts, shown_classes
from u2pl.data.source import DataSource, HasHeader, Sample
from u2pl.engine.compiling import missing_compiler
from u2pl.engine.memory import total_memory
from u2pl.errors import InputError
from u2pl.networks.published import unfetchable
from u2pl.pixels.image_prior import uncommon as uncommon_classes

_LOOKED_AT = 200  # images in a sample
_UNKNOWN_MEMORY = 8 * 2**30  # bytes, of a small machine; used if the size is unknown


@dataclass(frozen=True)
class Precision:
    """Pseudo-labels against the masks of labeled images that their teacher has not seen."""

    right: float  #: share of the confident pixels that are right, in [0, 1]: the mean over the predicted classes
    share: float  #: share of all pixels that are confident, in [0, 1]
    images: int  #: that were held out


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The input of the rules in :mod:`u2pl.auto.rules`."""

    labeled: int  #: images
    unlabeled: int
    val: int
    classes: int
    height: int  #: median of the training images after reading, pixels
    width: int
    shown: float = 0.0  #: mean number of classes in a labeled image; 0: unknown
    uncommon: float = 0.0  #: mean number of these that at most half of the labeled images show
    device: str  #: cpu, cuda or mps
    memory: int  #: of the device, bytes
    host_memory: int
    cores: int  #: for this process
    processes: int
    precision: Precision | None = None  #: of pseudo-labels; None: not measured yet
    unfetchable: Callable[[str], str | None] = unfetchable  #: why an encoder's published weights cannot be had
    uncompilable: str | None = None  #: why networks cannot be compiled here; None: they can

    @property
    def images(self) -> int:
        """Number of training images, labeled or not."""
        return self.labeled + self.unlabeled


def facts_of(source: DataSource, *, device: torch.device, processes: int, precision: Precision | None = None) -> Facts:
    """Inspect a data set and a machine. Raises InputError if there is no image or one cannot be read."""
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
        precision=precision,
        uncompilable=missing_compiler(device),
    )


def typical_size(samples: Sequence[Sample]) -> tuple[int, int]:
    """Median height and width of a sample of images, evenly spread by name. It ignores which of them are labeled."""
    if not samples:
        raise InputError("there is no image to train on; add some to the data set")
    by_name = sorted(samples, key=lambda sample: sample.name)
    sizes = [_size(sample) for sample in by_name[:: -(-len(by_name) // _LOOKED_AT)]]
    heights, widths = zip(*sizes, strict=True)
    return statistics.median_low(heights), statistics.median_low(widths)


def classes_shown(source: DataSource) -> tuple[float, float]:
    """Mean number of classes in a labeled image, and of uncommon ones, over evenly spread images.

    Masks that cannot be read are left out: the check of the data reports them. Both are zero if no mask can be read.
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
    """(H, W), read from the header if the sample can do so."""
    if isinstance(sample, HasHeader):
        return sample.image_size()
    height, width = sample.image().shape[-2:]
    return height, width


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
