"""Losses over pixels, without ignored ones. Without a pixel to learn from they are zero, never NaN.

In a run of several processes, each loss is a mean over the pixels of all of them: see :func:`divisor`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor

from u2pl.pixels.order import at_places, float_keys, float_of_keys
from u2pl.structures import IGNORE_INDEX, AtLeast0, Positive, Reduce, Share


def divisor(count: Tensor, average: Reduce | None = None) -> Tensor:
    """What a sum over this process's pixels is divided by, so that training follows the mean over all pixels.

    Training averages the gradients of W processes. A mean over the pixels of each process would weigh the pixels of a
    process with few of them more. The average of ``sum_r / (count / W)`` over processes r is the sum over all pixels,
    divided by the ``count`` of all.

    Args:
        count: number of pixels, or a sum of weights, of this process; any shape.
        average: averages a tensor over processes; None: there is one.
    """
    return count.clamp(min=1) if average is None else average(count.float()).clamp(min=1e-6)


def cross_entropy(logits: Tensor, target: Tensor, average: Reduce | None = None) -> Tensor:
    """Mean cross-entropy of (B, C, H, W) logits over the pixels of (B, H, W) ``target`` that are not ignored."""
    total = F.cross_entropy(logits.float(), target, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / divisor((target != IGNORE_INDEX).sum(), average)


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Mean cross-entropy over the pixels of all processes that are not ignored.

    Args:
        average: averages a tensor over processes; None: there is one.
    """

    average: Reduce | None = None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of (B, C, H, W) logits and a (B, H, W) int64 target."""
        return cross_entropy(logits, target, self.average)


@dataclass(frozen=True, slots=True)
class OhemCrossEntropy:
    """Mean cross-entropy over hard pixels (online hard example mining, Shrivastava et al. 2016).

    This is the paper's loss for Cityscapes. A pixel is hard if the probability of its true class is at most
    ``threshold``. At least the ``min_kept`` hardest pixels train, and with them all pixels as hard as the last one. If
    there are fewer labeled pixels, all of them train.

    Args:
        threshold: a pixel is hard if the probability of its true class is at most this.
        min_kept: smallest number of pixels of a batch that train, the hardest first.
        average, total: average and sum a tensor over processes, whose batches then count as one; None: there is one.
    """

    threshold: Share = 0.7
    min_kept: Positive = 100_000
    average: Reduce | None = None
    total: Reduce | None = None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of (B, C, H, W) logits and a (B, H, W) int64 target."""
        loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORE_INDEX, reduction="none")
        valid = target != IGNORE_INDEX
        # Cross-entropy is -log of the true-class probability, so the hardest pixel has the largest loss.
        at_least = self._loss_of_last(loss.detach(), valid)
        easiest = -math.log(self.threshold) if self.threshold > 0 else math.inf
        hard = valid & (loss.detach() >= at_least.clamp(max=easiest))
        return (loss * hard).sum() / divisor(hard.sum(), self.average)

    def _loss_of_last(self, loss: Tensor, valid: Tensor) -> Tensor:
        """Scalar: the loss of the easiest of the ``min_kept`` hardest pixels."""
        if self.total is None:
            ranked = loss.masked_fill(~valid, -1.0).flatten().sort(descending=True).values
            return ranked[(valid.sum().clamp(max=self.min_kept) - 1).clamp(min=0)]
        ordered = float_keys(loss.masked_fill(~valid, 0.0)).flatten().sort().values
        pixels, labeled = self.total(torch.stack((torch.full_like(valid.sum(), valid.numel()), valid.sum())))
        place = pixels - 1 - (labeled.clamp(max=self.min_kept) - 1).clamp(min=0)  # from the easiest pixel on
        return float_of_keys(at_places(ordered, place.new_zeros(1), place.view(1, 1), self.total)).squeeze()


def rarity_weight(share: Tensor, offset: float = 1.02) -> Tensor:
    """ENet's class weight ``1 / ln(offset + p_c)``, elementwise (Paszke et al. 2016, arXiv 1606.02147).

    p_c is the share of the class among all labeled pixels. With the default offset, a class that fills all images
    weighs 1/36 of a class that is almost absent.
    """
    return 1 / (offset + share.float()).log()


@dataclass(frozen=True, slots=True)
class BalancedCrossEntropy:
    """Cross-entropy that weighs each pixel by the rarity of its class among the labeled pixels of the batch.

    Its minimum is proportional to ``w_c p(c | pixel)``, not to ``p(c | pixel)``, where w_c is the
    :func:`rarity_weight`. The network then finds rare classes, but predicts them too often.

    Args:
        offset: a class weighs 1 / ln(offset + its share of pixels); closer to 1, rare classes weigh more.
        average: averages a tensor over processes, whose batches then count as one; None: there is one.
    """

    offset: Annotated[float, Interval(gt=1, le=1e6)] = 1.02
    average: Reduce | None = None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Weighted mean, a scalar, of (B, C, H, W) logits and a (B, H, W) int64 target."""
        classes = logits.shape[1]
        labels = target.masked_fill(target == IGNORE_INDEX, classes).flatten()
        pixels = logits.new_zeros(classes + 1, dtype=torch.float32)
        pixels = pixels.scatter_add_(0, labels, torch.ones_like(labels, dtype=torch.float32))[:classes]
        pixels = pixels if self.average is None else self.average(pixels)
        one = 1 if self.average is None else 1e-6  # an average of few pixels is below one
        weight = rarity_weight(pixels / pixels.sum().clamp(min=one), self.offset)
        total = F.cross_entropy(logits.float(), target, weight, ignore_index=IGNORE_INDEX, reduction="sum")
        return total / (weight * pixels).sum().clamp(min=1e-6)


@dataclass(frozen=True, slots=True)
class SymmetricCrossEntropy:
    """Mean of ``CE + reverse_weight * RCE`` over the pixels that are not ignored (Wang et al. 2019, arXiv 1908.06112).

    The reverse term ``RCE = -sum_c p_c log q_c`` swaps prediction and one-hot target q. Zeros of q are clamped at
    ``floor``. The term is bounded, which limits the effect of a wrong target.

    Args:
        reverse_weight: lambda_rce, weight of the reverse cross-entropy.
        floor: target probability of every other class in the reverse cross-entropy.
        average: averages a tensor over processes; None: there is one.
    """

    reverse_weight: AtLeast0 = 0.1
    floor: Annotated[float, Interval(ge=1e-30, le=1)] = 1e-4
    average: Reduce | None = None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of (B, C, H, W) logits and a (B, H, W) int64 target."""
        loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORE_INDEX, reduction="none")
        # log q is 0 at the target and log(floor) elsewhere, so RCE is -log(floor) (1 - p_target); CE is -log p_target.
        reverse = math.log(self.floor) * (-loss).expm1()
        return (loss + self.reverse_weight * reverse).sum() / divisor((target != IGNORE_INDEX).sum(), self.average)
