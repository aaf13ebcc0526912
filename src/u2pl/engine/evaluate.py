"""One confusion matrix over whole images, and the scores computed from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from u2pl.engine.inference import Inference, Whole
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


@torch.no_grad()
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
    ``inference`` defines how the network processes an image. The network returns to its former mode.
    """
    training = network.training
    network.eval()
    matrix = confusion_matrix(num_classes).to(fabric.device)
    segment = inference(network)
    for image, mask in images:
        with fabric.autocast():
            scores = segment(as_float(fabric.to_device(image)).unsqueeze(0))
        matrix.update(scores.argmax(dim=1), fabric.to_device(mask).long().unsqueeze(0))
    network.train(training)
    return summed(fabric, matrix)


def confusion_matrix(num_classes: int) -> MulticlassConfusionMatrix:
    """Counts pixels of this process's images, without ignored ones."""
    # `summed` adds up the processes. The metric's own sum would wait forever for a process without images.
    return MulticlassConfusionMatrix(num_classes, ignore_index=IGNORE_INDEX, validate_args=False, sync_on_compute=False)


def summed(fabric: Fabric, matrix: MulticlassConfusionMatrix) -> Tensor:
    """(C, C) counts, summed over all processes."""
    # Of a single class, the metric's own `compute` makes a matrix without dimensions.
    return fabric.all_reduce(matrix.confmat, reduce_op="sum")  # type: ignore[return-value]
