"""The weight of pseudo-labels in L_u: U2PL's lambda_u, FixMatch's share of reliable pixels, or DACS's weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from u2pl.methods.base import PixelLoss
from u2pl.structures import IGNORE_INDEX, Above0, PseudoLabel, Share


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
    """

    maximum: Above0 | None = None

    def lambda_u(self, targets: PseudoLabel) -> Tensor:
        """Scalar: number of all valid unlabeled pixels of the batch over the number of reliable ones."""
        ratio = targets.valid.sum() / targets.reliable.sum().clamp(min=1)
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
    """

    def __call__(
        self, loss: PixelLoss, logits: Tensor, targets: PseudoLabel, *, known: Tensor, predicted: PseudoLabel
    ) -> Tensor:
        """See :class:`Weighting`. True labels count as reliable pixels."""
        share = targets.reliable.sum() / targets.valid.sum().clamp(min=1)
        return share * loss(logits, targets.target())


@dataclass(frozen=True, slots=True)
class ConfidentShare:
    """DACS's weight (Tranheden et al. 2021, arXiv 2007.08702): the share of confident predictions in the batch.

    Predicted pixels have this weight, true labels weigh one. The threshold selects no pixels: while the teacher is
    unsure, all its predictions weigh little.

    Args:
        threshold: a prediction is confident if its likeliest class has at least this probability.
    """

    threshold: Share = 0.968

    def share(self, predicted: PseudoLabel) -> Tensor:
        """Scalar: share of the valid pixels of unmixed images whose prediction is confident."""
        confident = predicted.valid & (predicted.confidence >= self.threshold)
        return confident.sum() / predicted.valid.sum().clamp(min=1)

    def __call__(
        self, loss: PixelLoss, logits: Tensor, targets: PseudoLabel, *, known: Tensor, predicted: PseudoLabel
    ) -> Tensor:
        """See :class:`Weighting`."""
        own = targets.target().masked_fill(known != IGNORE_INDEX, IGNORE_INDEX)
        count, known_count = ((part != IGNORE_INDEX).sum() for part in (own, known))
        total = self.share(predicted) * count * loss(logits, own) + known_count * loss(logits, known)
        return total / (count + known_count).clamp(min=1)
