"""What the contrast asks of each pixel: the teacher's opinion, and the sets that anchors and negatives come from."""

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
    """Pixels of labeled and mixed images, B = B_l + V B_u of them, at the resolution (h, w) of the embedding."""

    embedding: Tensor | None  #: (B, D, h, w), the teacher's
    probability: Tensor  #: (B, C, h, w) float32, the teacher's
    rank: Tensor  #: (B, C, h, w), O(c) by the teacher
    target: Tensor  #: (B, h, w) int64, class of labeled and of reliable pixels, else IGNORE_INDEX
    label: Tensor  #: (B, h, w) int64, true class of labeled pixels, else IGNORE_INDEX
    unreliable: Tensor  #: (B, h, w) bool, unlabeled pixels that serve as negatives
    absent: Tensor | None  #: (B, C, h, w) bool, classes that a pixel is not, by the tags of its image
    truth: Tensor | None  #: (B, h, w) int64, true classes, for a diagnosis


def mixed_output(teacher: SegmentationOutput, batch: Batch, mixed: MixedViews) -> SegmentationOutput:
    """The teacher's output for labeled and weak images, its weak part mixed as the images are."""
    labeled = len(batch.image)

    def follow(tensor: Tensor) -> Tensor:
        return mixed.follow(tensor[labeled:], tensor[:labeled])

    embedding = None if teacher.embedding is None else follow(teacher.embedding)
    return replace(teacher, coarse=follow(teacher.coarse), embedding=embedding)


def make_keys(output: SegmentationOutput, batch: Batch, mixed: MixedViews, negative_keys: NegativeKeys) -> Keys:
    """Sort the pixels of the teacher's ``output`` for labeled and mixed images into sets.

    Pixels that were pasted from labeled images are labeled pixels wherever they lie: anchors and hard negatives by
    their true class, never negatives by what is predicted.
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
    """(B, C, h, w) bool: classes that a valid pixel is not, since its image is not tagged with them."""
    if batch.tags is None:
        return None
    valid = torch.ones_like(batch.weak[:, 0], dtype=torch.bool) if batch.valid is None else batch.valid  # type: ignore[index]
    absent = ~batch.tags[:, :, None, None] & downsample(valid, size).unsqueeze(1)
    return follow_tags(absent, batch, mixed, labeled=False)


def follow_tags(weak: Tensor, batch: Batch, mixed: MixedViews | None, *, labeled: bool) -> Tensor:
    """What holds of weak images (B_u, C, h, w) bool, for the labeled images and, with ``mixed``, the mixed ones.

    ``labeled`` is what holds of images with labels. Without ``mixed`` the weak images follow as they are.
    """
    own = len(batch.image) - len(weak) if batch.seeded else len(batch.image)
    first = torch.full((own, *weak.shape[1:]), labeled, dtype=torch.bool, device=weak.device)
    first = torch.cat((first, weak)) if batch.seeded else first
    return torch.cat((first, weak)) if mixed is None else mixed.follow(weak, first)


def true_classes(batch: Batch, mixed: MixedViews, size: torch.Size) -> Tensor | None:
    """(B, h, w) int64: labels, then true classes mixed as the images; None unless a run is diagnosed.

    A seed is no truth: the true classes of a weak image stand in its place. Where a mix has erased, the class says
    nothing.
    """
    if batch.truth is None:
        return None
    label = torch.cat((batch.label[: -len(batch.truth)], batch.truth)) if batch.seeded else batch.label
    return downsample(mixed.follow(batch.truth, label), size)


def downsample(tensor: Tensor, size: torch.Size) -> Tensor:
    """(B, H, W) of any dtype to (B, h, w) by nearest neighbour."""
    return F.interpolate(tensor.unsqueeze(1).float(), size=size).squeeze(1).to(tensor.dtype)
