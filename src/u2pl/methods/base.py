"""The interface of a method for the engine: a step that returns named losses, and hooks around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from u2pl.structures import Batch, SegmentationOutput

PixelLoss = Callable[[Tensor, Tensor], Tensor]  #: (logits (B, C, H, W), target (B, H, W)) -> scalar


class Method(nn.Module):
    """A training method. Its state dict holds everything that it keeps between steps, so resuming is exact."""

    semi_supervised = False  #: whether batches need unlabeled images
    has_teacher = False  #: whether a network other than the student makes pseudo-labels
    has_threshold = False  #: whether one confidence alone decides which pseudo-labels train, from the first step on
    has_contrast = False  #: whether it can train embeddings
    uses_tags = False  #: whether batches need image-level tags, and the network a classification head
    strong_views: int | None = 1  #: strong views of each unlabeled image; None: any number

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The unweighted losses of one step, by name.

        Args:
            student: the network in training; it is not part of the method.
            batch: the data of this step.
            progress: t / T in [0, 1).
        """
        raise TypeError(f"{type(self).__name__} does not define a step")

    def after_step(self, student: nn.Module) -> None:
        """Called after each optimizer step."""

    def diagnose(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Counts that show whether unlabeled images train the student well, measured with the ``truth`` of a batch.

        It may change the student and its own state: the engine restores them and the random numbers.

        Returns:
            By name (2,) or, per class, (2, C) int64: how many, and out of how many. Counts add up over batches. Empty
            if there is nothing to count yet.
        """
        return {}

    def candidates(self, student: nn.Module) -> dict[str, nn.Module]:
        """The networks to evaluate, by name. The last one is the model to use."""
        return {"student": student}

    def get_extra_state(self) -> Any:
        """Numbers that the method counts on the host. They are saved with its tensors."""
        return {}

    def set_extra_state(self, state: Any) -> None:
        """Restore the result of :meth:`get_extra_state`."""


def supervised_losses(output: SegmentationOutput, label: Tensor, loss: PixelLoss) -> dict[str, Tensor]:
    """L_s for labeled images, and the same loss for the auxiliary head if there is one."""
    losses = {"supervised": loss(output.logits, label)}
    if output.auxiliary is not None:
        losses["auxiliary"] = loss(output.auxiliary, label)
    return losses
