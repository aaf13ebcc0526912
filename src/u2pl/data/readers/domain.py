"""Two data sets as one, for domain adaptation: labels of the source, perhaps a few of the target, and its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from u2pl.data.class_mapping import Lookup, by_name, compose, to_lookup
from u2pl.data.classes import keep
from u2pl.data.source import DataSource, HasNotes, Sample, image_size
from u2pl.errors import InputError


@dataclass(frozen=True)
class DomainSample:
    """A sample of one domain, with its mask in the common classes."""

    sample: Sample
    domain: str  #: source or target
    lookup: Lookup | None = None  #: class of the sample's own data set -> class index or 255; None: no change

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.sample.name}"  # both domains may have an image with the same stem

    @property
    def has_mask(self) -> bool:
        return self.sample.has_mask

    @property
    def tags(self) -> frozenset[int] | None:
        return None  # only masks train

    def image(self) -> Tensor:
        """(3, H, W) uint8 RGB, as the sample reads it."""
        return self.sample.image()

    def notes(self) -> tuple[str, ...]:
        """Notes of the sample."""
        return self.sample.notes() if isinstance(self.sample, HasNotes) else ()

    def mask(self) -> Tensor:
        """(H, W) uint8 indices of the common classes; 255 is ignored. Raises the InputError of the sample."""
        mask = self.sample.mask()
        if self.lookup is None:
            return mask
        return torch.from_numpy((np.asarray(self.lookup) & 255).astype(np.uint8)[mask.numpy()])

    def image_size(self) -> tuple[int, int]:
        """(H, W) of the image, read from its header if the sample supports it."""
        return image_size(self.sample)


def domain(
    *,
    source: DataSource,
    target: DataSource,
    mapping: Mapping[str, str] | None = None,
    upper_bound: bool = False,
) -> DataSource:
    """Combine the source's labeled images with the target's labeled, unlabeled and validation images.

    The classes are the target's. Without a mapping they are matched by name. Classes that the source does not have are
    then left out, even if labels of the target show them: so scores with and without such labels, and with different
    numbers of them, are about the same classes. With a mapping, all classes of the target stay.

    Args:
        source, target: both data sets; only the labeled images of the source are used. Labeled images of the target
            come after those of the source.
        mapping: source class -> target class; other source classes are ignored.
        upper_bound: use the target's own labels instead of the source's: the best that adaptation can reach.

    Raises InputError if the classes differ without a mapping, the target has no training image, or one of its
    validation images is labeled in the source.
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
    own = _of(target.labeled, "target", target_lookup)
    absent = [name for name in target.classes if name not in classes]
    note = [f"target classes that the source does not have are ignored: {', '.join(absent)}"] if absent else []
    if note and own and not upper_bound:
        note[0] += "; data.source.mapping keeps them, as labels of the target may show them"
    return DataSource(
        classes=classes,
        labeled=own if upper_bound else [*_of(source.labeled, "source", source_lookup), *own],
        unlabeled=_of(training if upper_bound else target.unlabeled, "target", target_lookup),
        val=_of(target.val, "target", target_lookup),
        palette=_palette(target, classes),
        notes=(
            *(f"source: {note}" for note in source.notes),
            *(f"target: {note}" for note in target.notes),
            *note,
        ),
        facts=(*(f"source: {fact}" for fact in source.facts), *(f"target: {fact}" for fact in target.facts)),
        val_groups=target.val_groups,
        target_labeled=0 if upper_bound else len(own),
        lookup=compose(target.lookup, target_lookup),
    )


def _of(samples: Sequence[Sample], name: str, lookup: Lookup | None) -> list[DomainSample]:
    return [DomainSample(sample, name, lookup) for sample in samples]


def _palette(target: DataSource, classes: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    if not target.palette:
        return ()
    return tuple(target.palette[target.classes.index(name)] for name in classes)


def _refuse_shared(labeled: Sequence[Sample], val: Sequence[Sample]) -> None:
    """Both domains may share a folder: raise InputError if a validation image would also train."""

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
