"""What the engine expects of a method: a step that returns named losses, and what to do after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from u2pl.structures import Batch, SegmentationOutput

PixelLoss = Callable[[Tensor, Tensor], Tensor]  #: (logits (B, C, H, W), target (B, H, W)) -> scalar


class Method(nn.Module):
    """A training method. Whatever it must remember between steps is in its state dict, so that resuming is exact."""

    semi_supervised = False  #: whether batches need unlabeled images
    has_teacher = False  #: whether another network than the student makes pseudo-labels
    has_contrast = False  #: whether it can train embeddings
    uses_tags = False  #: whether batches need image-level tags, and the network a classification head
    strong_views: int | None = 1  #: strong views of each unlabeled image; None: as many as are asked for

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The unweighted losses of one step, by name.

        Args:
            student: the network in training; it is not part of the method.
            batch: what this step drew.
            progress: t / T in [0, 1).
        """
        raise TypeError(f"{type(self).__name__} does not define a step")

    def after_step(self, student: nn.Module) -> None:
        """Called after the optimizer's step."""

    def diagnose(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Counts that tell whether unlabeled images train the student well, by the ``truth`` of a batch.

        May change what it likes: the engine puts student, method and random numbers back.

        Returns:
            By name (2,) or, per class, (2, C) int64: how many, and out of how many. They add up over batches. Nothing
            where there is nothing to look at yet.
        """
        return {}

    def candidates(self, student: nn.Module) -> dict[str, nn.Module]:
        """Networks worth evaluating, by name; the last one is the model to use."""
        return {"student": student}

    def get_extra_state(self) -> Any:
        """Numbers a method counts on the host, saved with its tensors."""
        return {}

    def set_extra_state(self, state: Any) -> None:
        """Restore :meth:`get_extra_state`."""


def supervised_losses(output: SegmentationOutput, label: Tensor, loss: PixelLoss) -> dict[str, Tensor]:
    """L_s of the output for labeled images, and the same loss on the auxiliary head where there is one."""
    losses = {"supervised": loss(output.logits, label)}
    if output.auxiliary is not None:
        losses["auxiliary"] = loss(output.auxiliary, label)
    return losses
