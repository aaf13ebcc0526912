"""One confusion matrix over whole images, and the scores computed from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

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


def evaluate(
    fabric: Fabric,
    network: nn.Module,
    images: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    *,
    inference: Inference = Whole,
) -> Tensor:
    """(C, C) confusion matrix of ``network`` over ``(image (3, H, W), mask (H, W))``, summed over all processes.

    Images are uint8, or float32 in [0, 1]; masks are uint8 or int64.
    ``inference`` defines how the network processes an image. Several images are processed at a time, see
    :func:`u2pl.engine.many_images.segment_many`. The network returns to its former mode.
    """
    training = network.training
    network.eval()

    def work(segment: Segment, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        image, mask = (torch.stack([fabric.to_device(pair[place]) for pair in pairs]) for place in (0, 1))
        with torch.no_grad(), fabric.autocast():
            predicted = labels(segment(as_float(image)))
        return count(mask, predicted, num_classes)

    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=fabric.device)
    done = segment_many(work, images, network=network, inference=inference, size=_size, device=fabric.device)
    with closing(done):
        for _, more in done:
            counts += more
    network.train(training)
    return summed(fabric, counts)


def _size(pair: tuple[Tensor, Tensor]) -> tuple[int, int]:
    height, width = pair[0].shape[-2:]
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
    """(C, C) counts, summed over all processes."""
    return fabric.all_reduce(counts, reduce_op="sum")  # type: ignore[return-value]
