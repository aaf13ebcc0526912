"""The weight of pseudo-labels in L_u: U2PL's lambda_u, FixMatch's share of reliable pixels, or DACS's weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from u2pl.methods.base import PixelLoss
from u2pl.pixels.losses import divisor
from u2pl.structures import IGNORE_INDEX, Above0, PseudoLabel, Reduce, Share


class Weighting(Protocol):
    """Weighs L_u or its pixels."""

    def __call__(
        self, loss: PixelLoss, logits: Tensor, targets: PseudoLabel, *, known: Tensor, predicted: PseudoLabel
    ) -> Tensor:
        """Weighted mean loss over the reliable pixels of ``targets``.

        Args:
            loss: a mean over pixels.
            logits: (B, C, H, W), for mixed images.
            targets: (B, H, W), mixed like the images.
            known: (B, H, W) int64, the true labels in ``targets``, IGNORE_INDEX on predicted pixels.
            predicted: the teacher's pseudo-labels for the unmixed images.
        """


@dataclass(frozen=True, slots=True)
class LambdaU:
    """U2PL's weight: the fewer pixels are reliable, the more each of them weighs (section 3.2).

    Args:
        maximum: largest lambda_u, for runs in which ``min_confidence`` leaves few reliable pixels; null: no limit.
        average: averages a tensor over processes, whose pixels then count together; None: there is one.
    """

    maximum: Above0 | None = None
    average: Reduce | None = None

    def lambda_u(self, targets: PseudoLabel) -> Tensor:
        """Scalar: number of all valid unlabeled pixels of the batch over the number of reliable ones."""
        ratio = mean_count(targets.valid, self.average) / divisor(targets.reliable.sum(), self.average)
        return ratio if self.maximum is None else ratio.clamp(max=self.maximum)

    def __call__(
        self, loss: PixelLoss, logits: Tensor, targets: PseudoLabel, *, known: Tensor, predicted: PseudoLabel
    ) -> Tensor:
        """See :class:`Weighting`. True labels count as reliable pixels."""
        return self.lambda_u(targets) * loss(logits, targets.target())


@dataclass(frozen=True, slots=True)
class ReliableShare:
    """FixMatch's weight (Sohn et al. 2020, arXiv 2001.07685), the inverse of lambda_u.

    The loss is divided by the number of all valid pixels, so few reliable pixels weigh little together.

    Args:
        average: averages a tensor over processes, whose pixels then count together; None: there is one.
    """

    average: Reduce | None = None

    def __call__(
        self, loss: PixelLoss, logits: Tensor, targets: PseudoLabel, *, known: Tensor, predicted: PseudoLabel
    ) -> Tensor:
        """See :class:`Weighting`. True labels count as reliable pixels."""
        share = mean_count(targets.reliable, self.average) / divisor(targets.valid.sum(), self.average)
        return share * loss(logits, targets.target())


@dataclass(frozen=True, slots=True)
class ConfidentShare:
    """DACS's weight (Tranheden et al. 2021, arXiv 2007.08702): the share of confident predictions in the batch.

    Predicted pixels have this weight, true labels weigh one. The threshold selects no pixels: while the teacher is
    unsure, all its predictions weigh little.

    Args:
        threshold: a prediction is confident if its likeliest class has at least this probability.
        average: averages a tensor over processes, whose pixels then count together; None: there is one.
    """

    threshold: Share = 0.968
    average: Reduce | None = None

    def share(self, predicted: PseudoLabel) -> Tensor:
        """Scalar: share of the valid pixels of unmixed images whose prediction is confident."""
        confident = predicted.valid & (predicted.confidence >= self.threshold)
        return mean_count(confident, self.average) / divisor(predicted.valid.sum(), self.average)

    def __call__(
        self, loss: PixelLoss, logits: Tensor, targets: PseudoLabel, *, known: Tensor, predicted: PseudoLabel
    ) -> Tensor:
        """See :class:`Weighting`."""
        own = targets.target().masked_fill(known != IGNORE_INDEX, IGNORE_INDEX)
        count, known_count = (mean_count(part != IGNORE_INDEX, self.average) for part in (own, known))
        total = self.share(predicted) * count * loss(logits, own) + known_count * loss(logits, known)
        return total / (count + known_count).clamp(min=1 if self.average is None else 1e-6)


def mean_count(pixels: Tensor, average: Reduce | None) -> Tensor:
    """Scalar: how many of the pixels (B, H, W) bool are true, averaged over processes if there are several."""
    return pixels.sum() if average is None else average(pixels.sum().float())
