"""One confusion matrix over whole images, and the scores read from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from u2pl.engine.inference import Inference, Whole
from u2pl.structures import IGNORE_INDEX


@dataclass(frozen=True)
class Scores:
    """Scores of a segmentation, in percent."""

    miou: float  #: mean over the classes that occur in masks or predictions
    iou: dict[str, float | None]  #: None for a class that occurs in neither
    pixel_accuracy: float
    stages: Mapping[str, Scores] = field(default_factory=dict)  #: of what a segmentation was learned from, by name

    @classmethod
    def from_confusion(cls, confusion: Tensor, classes: Iterable[str]) -> Scores:
        """Scores of a (C, C) matrix of pixel counts, true class by row, predicted class by column."""
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

        Where there are stages, also ``"stages": {name: mIoU}`` of each, and of this one as ``segmentation``.
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

    ``inference`` is how the network sees an image. The network goes back to the mode it came in.
    """
    training = network.training
    network.eval()
    matrix = confusion_matrix(num_classes).to(fabric.device)
    segment = inference(network)
    for image, mask in images:
        with fabric.autocast():
            scores = segment(fabric.to_device(image).unsqueeze(0))
        matrix.update(scores.argmax(dim=1), fabric.to_device(mask).unsqueeze(0))
    network.train(training)
    return summed(fabric, matrix)


def confusion_matrix(num_classes: int) -> MulticlassConfusionMatrix:
    """Counts pixels that are not ignored, of the images of this process."""
    # Processes are summed by `summed`. The metric would do it, too, and wait for ever for one that has no image.
    return MulticlassConfusionMatrix(num_classes, ignore_index=IGNORE_INDEX, validate_args=False, sync_on_compute=False)


def summed(fabric: Fabric, matrix: MulticlassConfusionMatrix) -> Tensor:
    """(C, C) counts of all processes together."""
    total = matrix.compute() if matrix.update_called else matrix.confmat
    return fabric.all_reduce(total, reduce_op="sum")  # type: ignore[return-value]
