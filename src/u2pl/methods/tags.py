"""Parts that use image-level tags: a refiner that rules out absent classes, and a loss of whole images."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from u2pl.methods.keys import follow_tags
from u2pl.methods.parts import FurtherLoss, Refiner, Step
from u2pl.methods.strong_views import MixedViews
from u2pl.pixels.adaptive_mixing import class_pixels
from u2pl.pixels.cam import multi_label_loss, tag_scores
from u2pl.structures import IGNORE_INDEX, Batch, Reduce, SegmentationOutput

_NEVER = -1e4  # a logit with probability zero in every precision; its product with zero is zero


class LimitToTags(Refiner):
    """Sets the teacher's probabilities of absent classes to zero and renormalises the others."""

    def forward(self, output: SegmentationOutput, batch: Batch, mixed: MixedViews | None = None) -> SegmentationOutput:
        """Limit all images whose tags are known, wherever they are in the output."""
        tags, _ = tags_of(batch)
        allowed = tags[:, :, None, None]
        if mixed is None and len(output.logits) == len(tags):
            return replace(output, logits=limited(output.logits, allowed), coarse=limited(output.coarse, allowed))
        allowed = allowed.expand(-1, -1, *output.coarse.shape[-2:])
        coarse = limited(output.coarse, follow_tags(allowed, batch, mixed, labeled=True))
        if mixed is not None:  # keys only use coarse scores
            return replace(output, coarse=coarse)
        logits = limited(output.logits[-len(tags) :], tags[:, :, None, None])
        return replace(output, logits=torch.cat((output.logits[: -len(tags)].float(), logits)), coarse=coarse)


class ClassificationLoss(FurtherLoss):
    """Adds ``classification``: the multi-label loss of all unmixed images by their tags, from the first step on.

    Args:
        average: averages a tensor over processes, whose images then count together; None: there is one.
    """

    in_warmup = True

    def __init__(self, average: Reduce | None = None) -> None:
        super().__init__()
        self.average = average

    def forward(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """The losses with ``classification``. The tags of a labeled crop come from its label."""
        batch, activation = step.batch, step.output.labeled.activation
        assert activation is not None
        tags, tagged = tags_of(batch)
        label = batch.label[: len(batch.label) - len(tags)]
        present = class_pixels(label, tags.shape[1]).flatten(2).any(dim=2)
        valid = torch.ones_like(batch.label[-len(tags) :], dtype=torch.bool) if batch.valid is None else batch.valid
        scores = tag_scores(activation, torch.cat((label != IGNORE_INDEX, valid)))
        tags, tagged = torch.cat((present, tags)), torch.cat((present.any(dim=1), tagged))
        return losses | {"classification": multi_label_loss(scores, tags[:, 1:], tagged, self.average)}


def tags_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """Tags (B_u, C) bool of the weak images, and (B_u,) whether they are known. Raises ValueError without tags."""
    if batch.tags is None or batch.tagged is None:
        raise ValueError("a weakly supervised step needs a batch with tags")
    return batch.tags, batch.tagged


def limited(logits: Tensor, allowed: Tensor) -> Tensor:
    """Logits (B, C, h, w) whose softmax is zero where ``allowed`` is False, and renormalised elsewhere."""
    return logits.float().masked_fill(~allowed, _NEVER)
