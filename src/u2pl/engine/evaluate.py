"""One confusion matrix over whole images, the areas of each image, and the scores computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.engine.inference import Inference, Segment, Whole
from u2pl.engine.many_images import segment_many
from u2pl.pixels.views import as_float
from u2pl.structures import IGNORE_INDEX


@dataclass(frozen=True)
class Scores:
    """Scores of a segmentation, in percent."""

    miou: float  #: mean over the classes that occur in masks or predictions
    iou: dict[str, float | None]  #: None for a class that occurs in neither
    pixel_accuracy: float
    stages: Mapping[str, Scores] = field(default_factory=dict)  #: of the maps that train the segmentation, by name
    areas: Tensor | None = field(default=None, compare=False, repr=False)  #: of each image, see :class:`Counted`
    confusion: Tensor | None = field(default=None, compare=False, repr=False)  #: of all images, see :class:`Counted`

    @classmethod
    def from_counted(cls, counted: Counted, classes: Iterable[str]) -> Scores:
        """Scores of whole images, with the counts that they are computed from."""
        scores = cls.from_confusion(counted.confusion, classes)
        return replace(scores, areas=counted.areas.cpu(), confusion=counted.confusion.cpu())

    @classmethod
    def from_confusion(cls, confusion: Tensor, classes: Iterable[str]) -> Scores:
        """Scores of a (C, C) matrix of pixel counts. Rows are true classes, columns are predicted classes."""
        counts = confusion.double().cpu()
        hit = counts.diagonal()
        union = counts.sum(0) + counts.sum(1) - hit
        iou = [100 * (h / u).item() if u > 0 else None for h, u in zip(hit, union, strict=True)]
        known = [value for value in iou if value is not None]
        return cls(
            miou=sum(known) / len(known) if known else 0.0,
            iou=dict(zip(classes, iou, strict=True)),
            pixel_accuracy=100 * (hit.sum() / counts.sum().clamp(min=1)).item(),
        )

    def as_json(self) -> dict[str, Any]:
        """``{"miou": percent, "iou": {class: percent}, "pixel_accuracy": percent}``.

        With stages also ``"stages": {name: mIoU}``, which includes this segmentation as ``segmentation``.
        """
        scores: dict[str, Any] = {"miou": self.miou, "iou": self.iou, "pixel_accuracy": self.pixel_accuracy}
        if self.stages:
            scores["stages"] = {name: stage.miou for name, stage in self.stages.items()} | {"segmentation": self.miou}
        return scores


class Counted(NamedTuple):
    """Pixels of whole images, without ignored ones."""

    confusion: Tensor  #: (C, C) int64, by true class (row) and predicted class
    areas: Tensor  #: (N, 2, C) int64: intersection and union of mask and prediction, of each image and class


def evaluate(
    fabric: Fabric,
    network: nn.Module,
    images: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    *,
    inference: Inference = Whole,
) -> Counted:
    """Count the pixels of ``network`` over ``(image (3, H, W), mask (H, W))``.

    Of several processes, each gets the images that follow each other at a distance of their number, beginning at its
    rank. The result is of all of them, in their common order.

    Images are uint8, or float32 in [0, 1]; masks are uint8 or int64.
    ``inference`` defines how the network processes an image. Several images are processed at a time, see
    :func:`u2pl.engine.many_images.segment_many`. The network returns to its former mode.
    """
    training = network.training
    network.eval()

    def work(segment: Segment, items: Sequence[_Numbered]) -> list[tuple[int, Tensor]]:
        image, mask = (torch.stack([fabric.to_device(pair[place]) for _, pair in items]) for place in (0, 1))
        with torch.no_grad(), fabric.autocast():
            predicted = labels(segment(as_float(image)))
        return [
            (number, count(one, other, num_classes))
            for (number, _), one, other in zip(items, mask, predicted, strict=True)
        ]

    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=fabric.device)
    areas: dict[int, Tensor] = {}
    done = segment_many(work, enumerate(images), network=network, inference=inference, size=_size, device=fabric.device)
    with closing(done):
        for _, counted in done:
            for number, counts in counted:
                confusion += counts
                areas[number] = areas_of(counts)
    network.train(training)
    rows = [areas[number] for number in range(len(areas))]
    own = torch.stack(rows) if rows else confusion.new_zeros(0, 2, num_classes)
    return Counted(summed(fabric, confusion), interleaved(fabric, own))


_Numbered = tuple[int, tuple[Tensor, Tensor]]  # an image and its mask


def areas_of(confusion: Tensor) -> Tensor:
    """(2, C) from a (C, C) matrix: intersection and union of each class."""
    hit = confusion.diagonal()
    return torch.stack((hit, confusion.sum(0) + confusion.sum(1) - hit))


def interleaved(fabric: Fabric, rows: Tensor) -> Tensor:
    """(N, ...) rows of all processes: of process r those at r, r + world_size, ..."""
    if fabric.world_size == 1:
        return rows
    number = int(summed(fabric, torch.tensor(len(rows), device=rows.device)))
    whole = rows.new_zeros(number, *rows.shape[1:])
    whole[fabric.global_rank :: fabric.world_size] = rows
    return summed(fabric, whole)


def _size(item: _Numbered) -> tuple[int, int]:
    height, width = item[1][0].shape[-2:]
    return height, width


def labels(scores: Tensor) -> Tensor:
    """(B, C, H, W) scores -> (B, H, W) int64, the most likely class; of equal scores the first."""
    return scores.max(dim=1).indices  # several times as fast as argmax on a CPU


def sure_labels(scores: Tensor, min_confidence: float = 0.0) -> Tensor:
    """As :func:`labels`, but IGNORE_INDEX where the probability of the most likely class is below ``min_confidence``.

    Scores are logits or logarithms of probabilities.
    """
    if min_confidence <= 0:
        return labels(scores)
    most = scores.max(dim=1)
    confidence = (most.values - scores.logsumexp(dim=1)).exp()
    return most.indices.masked_fill(confidence < min_confidence, IGNORE_INDEX)


def labels_and_confidence(scores: Tensor, min_confidence: float = 0.0) -> Tensor:
    """(B, 2, H, W) uint8: :func:`sure_labels`, and the probability of the most likely class, in 255ths."""
    largest = scores.float().softmax(dim=1).amax(dim=1)
    return torch.stack(
        (sure_labels(scores, min_confidence).to(torch.uint8), (largest * 255).round().to(torch.uint8)), 1
    )


def count(mask: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """(C, C) int64 pixels by true class (row) and predicted class, without ignored ones.

    Args:
        mask: (..., H, W), class index or IGNORE_INDEX.
        predicted: (..., H, W), class index.
    """
    # Ignored pixels are counted, too, in a row that is dropped: to select the others takes several times as long.
    pairs = (mask.long() * num_classes + predicted).flatten()
    rows = torch.bincount(pairs, minlength=(IGNORE_INDEX + 1) * num_classes)
    return rows.view(-1, num_classes)[:num_classes]


def summed(fabric: Fabric, counts: Tensor) -> Tensor:
    """Counts, summed over all processes."""
    return fabric.all_reduce(counts, reduce_op="sum")  # type: ignore[return-value]
