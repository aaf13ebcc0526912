"""Losses over pixels that may be ignored. Without a pixel to learn from they are zero, never NaN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from u2pl.structures import IGNORE_INDEX, Above0, AtLeast0, Positive, Share


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of (B, C, H, W) logits over the pixels of (B, H, W) ``target`` that are not ignored."""
    total = F.cross_entropy(logits.float(), target, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (target != IGNORE_INDEX).sum().clamp(min=1)


@dataclass(frozen=True, slots=True)
class OhemCrossEntropy:
    """Mean cross-entropy over hard pixels: true-class probability at most ``threshold``, and never fewer than
    ``min_kept`` of them (online hard example mining, Shrivastava et al. 2016; the paper's Cityscapes recipe).

    Pixels as hard as the last one kept are kept too. Fewer labeled pixels than ``min_kept`` are all kept.

    Args:
        threshold: a pixel is hard if its true class is at most this probable.
        min_kept: at least so many pixels of a batch train.
    """

    threshold: Share = 0.7
    min_kept: Positive = 100_000

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of (B, C, H, W) logits and a (B, H, W) int64 target."""
        loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORE_INDEX, reduction="none")
        valid = target != IGNORE_INDEX
        # Cross-entropy is -log of the true-class probability, so hardest first is largest loss first.
        ranked = loss.detach().masked_fill(~valid, -1.0).flatten().sort(descending=True).values
        at_least = ranked[(valid.sum().clamp(max=self.min_kept) - 1).clamp(min=0)]
        easiest = -math.log(self.threshold) if self.threshold > 0 else math.inf
        hard = valid & (loss.detach() >= at_least.clamp(max=easiest))
        return (loss * hard).sum() / hard.sum().clamp(min=1)


def rarity_weight(share: Tensor, offset: float = 1.02) -> Tensor:
    """``1 / ln(offset + p_c)`` of a class with the share p_c of all labeled pixels, elementwise: ENet's weights (Paszke
    et al. 2016, arXiv 1606.02147).

    With the default a class that fills all images weighs 1/36 of one that hardly shows.
    """
    return 1 / (offset + share.float()).log()


@dataclass(frozen=True, slots=True)
class BalancedCrossEntropy:
    """Cross-entropy in which a pixel weighs by the rarity of its class among the labeled pixels of the batch.

    What minimises it is in proportion to ``w_c p(c | pixel)``, with w_c the :func:`rarity_weight`, and not to
    ``p(c | pixel)``: rare classes are found, and seen too often.

    Args:
        offset: a class weighs 1 / ln(offset + its share); the nearer to 1, the more rare classes weigh.
    """

    offset: Annotated[float, Gt(1)] = 1.02

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Weighted mean, a scalar, of (B, C, H, W) logits and a (B, H, W) int64 target."""
        classes = logits.shape[1]
        labels = target.masked_fill(target == IGNORE_INDEX, classes).flatten()
        pixels = logits.new_zeros(classes + 1, dtype=torch.float32)
        pixels = pixels.scatter_add_(0, labels, torch.ones_like(labels, dtype=torch.float32))[:classes]
        weight = rarity_weight(pixels / pixels.sum().clamp(min=1), self.offset)
        total = F.cross_entropy(logits.float(), target, weight, ignore_index=IGNORE_INDEX, reduction="sum")
        return total / (weight * pixels).sum().clamp(min=1e-6)


@dataclass(frozen=True, slots=True)
class SymmetricCrossEntropy:
    """Mean of ``CE + reverse_weight * RCE`` over the pixels that are not ignored (Wang et al. 2019, arXiv 1908.06112).

    The reverse term, ``RCE = -sum_c p_c log q_c``, takes the one-hot target q for the prediction; its zeros are clamped
    at ``floor``. It is bounded, so a wrong target cannot pull without limit.

    Args:
        reverse_weight: lambda_rce, of the reverse term.
        floor: probability that the target gives to each other class.
    """

    reverse_weight: AtLeast0 = 0.1
    floor: Above0 = 1e-4

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of (B, C, H, W) logits and a (B, H, W) int64 target."""
        loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORE_INDEX, reduction="none")
        # log q is 0 at the target and log(floor) elsewhere, so RCE is -log(floor) (1 - p_target); CE is -log p_target.
        reverse = math.log(self.floor) * (-loss).expm1()
        return (loss + self.reverse_weight * reverse).sum() / (target != IGNORE_INDEX).sum().clamp(min=1)
