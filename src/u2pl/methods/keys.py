"""Inputs of the contrast for each pixel: the teacher's output, and the sets of anchors and negatives."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from u2pl.methods.strong_views import MixedViews
from u2pl.pixels.negative_keys import NegativeKeys, class_rank
from u2pl.structures import IGNORE_INDEX, Batch, SegmentationOutput


@dataclass(frozen=True, slots=True)
class Keys:
    """Pixels of B = B_l + V B_u labeled and mixed images, at the resolution (h, w) of the embedding."""

    embedding: Tensor | None  #: (B, D, h, w), from the teacher
    probability: Tensor  #: (B, C, h, w) float32, from the teacher
    rank: Tensor  #: (B, C, h, w), O(c) from the teacher
    target: Tensor  #: (B, h, w) int64, class of labeled and reliable pixels, else IGNORE_INDEX
    label: Tensor  #: (B, h, w) int64, true class of labeled pixels, else IGNORE_INDEX
    unreliable: Tensor  #: (B, h, w) bool, unlabeled pixels that serve as negatives
    absent: Tensor | None  #: (B, C, h, w) bool, classes that the image's tags rule out
    truth: Tensor | None  #: (B, h, w) int64, true classes, for a diagnosis


def mixed_output(teacher: SegmentationOutput, batch: Batch, mixed: MixedViews) -> SegmentationOutput:
    """The teacher's output for labeled and weak images. The weak part is mixed like the images."""
    labeled = len(batch.image)

    def follow(tensor: Tensor) -> Tensor:
        return mixed.follow(tensor[labeled:], tensor[:labeled])

    embedding = None if teacher.embedding is None else follow(teacher.embedding)
    return replace(teacher, coarse=follow(teacher.coarse), embedding=embedding)


def make_keys(output: SegmentationOutput, batch: Batch, mixed: MixedViews, negative_keys: NegativeKeys) -> Keys:
    """Sort the pixels of labeled and mixed images into sets, from the teacher's ``output`` for these images.

    Pixels pasted from labeled images count as labeled pixels. They are anchors and hard negatives by their true class,
    never negatives by prediction.
    """
    size = output.coarse.shape[-2:]
    probability = output.coarse.float().softmax(dim=1)
    known = mixed.true_label()
    unlabeled = negative_keys.candidates(mixed.pseudo) & (known == IGNORE_INDEX)
    nowhere = torch.zeros_like(batch.label, dtype=torch.bool)
    return Keys(
        embedding=output.embedding,
        probability=probability,
        rank=class_rank(probability),
        target=downsample(torch.cat((batch.label, mixed.pseudo.target())), size),
        label=downsample(torch.cat((batch.label, known)), size),
        unreliable=downsample(torch.cat((nowhere, unlabeled)), size),
        absent=absent_classes(batch, mixed, size) if negative_keys.tags else None,
        truth=true_classes(batch, mixed, size),
    )


def absent_classes(batch: Batch, mixed: MixedViews, size: torch.Size) -> Tensor | None:
    """(B, C, h, w) bool: true for a valid pixel and the classes that its image is not tagged with."""
    if batch.tags is None:
        return None
    valid = torch.ones_like(batch.weak[:, 0], dtype=torch.bool) if batch.valid is None else batch.valid  # type: ignore[index]
    absent = ~batch.tags[:, :, None, None] & downsample(valid, size).unsqueeze(1)
    return follow_tags(absent, batch, mixed, labeled=False)


def follow_tags(weak: Tensor, batch: Batch, mixed: MixedViews | None, *, labeled: bool) -> Tensor:
    """Extend values of weak images (B_u, C, h, w) bool to labeled images and, with ``mixed``, to mixed images.

    ``labeled`` is the value for images with labels. Without ``mixed`` the weak images follow unchanged.
    """
    own = len(batch.image) - len(weak) if batch.seeded else len(batch.image)
    first = torch.full((own, *weak.shape[1:]), labeled, dtype=torch.bool, device=weak.device)
    first = torch.cat((first, weak)) if batch.seeded else first
    return torch.cat((first, weak)) if mixed is None else mixed.follow(weak, first)


def true_classes(batch: Batch, mixed: MixedViews, size: torch.Size) -> Tensor | None:
    """(B, h, w) int64: labels, then true classes mixed like the images; None unless a run is diagnosed.

    Seeds are not true classes: the true classes of the weak image replace them. Where a mix erases pixels, the class
    has no meaning.
    """
    if batch.truth is None:
        return None
    label = torch.cat((batch.label[: -len(batch.truth)], batch.truth)) if batch.seeded else batch.label
    return downsample(mixed.follow(batch.truth, label), size)


def downsample(tensor: Tensor, size: torch.Size) -> Tensor:
    """Resize (B, H, W) of any dtype to (B, h, w) by nearest neighbour."""
    return F.interpolate(tensor.unsqueeze(1).float(), size=size).squeeze(1).to(tensor.dtype)
