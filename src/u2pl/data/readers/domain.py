"""Two data sets as one, for domain adaptation: labels of the source domain, images of the target domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from u2pl.data.class_mapping import Lookup, by_name, compose, to_lookup
from u2pl.data.classes import keep
from u2pl.data.source import DataSource, Sample, image_size
from u2pl.errors import InputError


@dataclass(frozen=True)
class DomainSample:
    """A sample of one domain, its mask in the classes of both."""

    sample: Sample
    domain: str  #: source or target
    lookup: Lookup | None = None  #: class of the sample's own data set -> class index or 255; None: they are the same

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.sample.name}"  # both domains may have an image of the same stem

    @property
    def has_mask(self) -> bool:
        return self.sample.has_mask

    @property
    def tags(self) -> frozenset[int] | None:
        return None  # labels of the source alone train

    def image(self) -> Tensor:
        """(3, H, W) uint8 RGB, as the sample reads it."""
        return self.sample.image()

    def mask(self) -> Tensor:
        """(H, W) uint8 indices of the common classes, 255 is ignored. Raises InputError as the sample does."""
        mask = self.sample.mask()
        if self.lookup is None:
            return mask
        return torch.from_numpy((np.asarray(self.lookup) & 255).astype(np.uint8)[mask.numpy()])

    def image_size(self) -> tuple[int, int]:
        """(H, W) of the image, from its header where the sample can."""
        return image_size(self.sample)


def domain(
    *,
    source: DataSource,
    target: DataSource,
    mapping: Mapping[str, str] | None = None,
    upper_bound: bool = False,
) -> DataSource:
    """Labeled images of the source, all training images of the target as unlabeled ones, the target's validation.

    The classes are the target's. Without a mapping they are matched by name, and those that the source does not have
    are left out: no label shows them. Masks of the target's training images are read by nobody but a diagnosis.

    Args:
        source, target: both data sets; of the source only the labeled images are used.
        mapping: source class -> target class; other source classes are ignored.
        upper_bound: the labeled images are the target's own instead: what adaptation can reach at best.

    Raises InputError where the classes differ without a mapping, the target has no training image, or an image of its
    validation has a label in the source.
    """
    classes, target_lookup = target.classes, None
    if mapping is None:
        mapping = by_name(source.classes, target.classes)
        classes, target_lookup = keep(target.classes, [name for name in target.classes if name in source.classes])
    source_lookup = None if source.classes == classes else to_lookup(dict(mapping), source.classes, classes)
    training = [*target.labeled, *target.unlabeled]
    if not training:
        raise InputError("data.target: has no training image; all are for validation, or there is none")
    if not upper_bound:
        _refuse_shared(source.labeled, target.val)
    labeled = _of(target.labeled, "target", target_lookup) if upper_bound else None
    absent = [name for name in target.classes if name not in classes]
    note = [f"classes of the target that the source has not are ignored: {', '.join(absent)}"] if absent else []
    return DataSource(
        classes=classes,
        labeled=_of(source.labeled, "source", source_lookup) if labeled is None else labeled,
        unlabeled=_of(training, "target", target_lookup),
        val=_of(target.val, "target", target_lookup),
        palette=_palette(target, classes),
        notes=(
            *(f"source: {note}" for note in source.notes),
            *(f"target: {note}" for note in target.notes),
            *note,
        ),
        lookup=compose(target.lookup, target_lookup),
    )


def _of(samples: Sequence[Sample], name: str, lookup: Lookup | None) -> list[DomainSample]:
    return [DomainSample(sample, name, lookup) for sample in samples]


def _palette(target: DataSource, classes: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    if not target.palette:
        return ()
    return tuple(target.palette[target.classes.index(name)] for name in classes)


def _refuse_shared(labeled: Sequence[Sample], val: Sequence[Sample]) -> None:
    """Both domains may lie in one folder; an image that is validated on must not train."""

    def key(sample: Sample) -> object:
        path = getattr(sample, "image_path", None)
        return sample if path is None else path.resolve()

    held_out = {key(sample) for sample in val}
    both = [sample.name for sample in labeled if key(sample) in held_out]
    if both:
        raise InputError(
            f"data.source: {len(both)} of its labeled images, such as {both[0]}, are in the target's validation; "
            "hold them out with data.source.val or take them off one of the lists"
        )
