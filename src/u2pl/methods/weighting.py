"""How much what a teacher says weighs in L_u: U2PL's lambda_u, FixMatch's share of what is reliable, and DACS's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from u2pl.methods.base import PixelLoss
from u2pl.structures import IGNORE_INDEX, Above0, PseudoLabel, Share


class Weighting(Protocol):
    """Weighs L_u, or its pixels."""

    def __call__(
        self, loss: PixelLoss, logits: Tensor, targets: PseudoLabel, *, known: Tensor, predicted: PseudoLabel
    ) -> Tensor:
        """Weighted mean loss over the reliable pixels of ``targets``.

        Args:
            loss: its mean over pixels.
            logits: (B, C, H, W), of mixed images.
            targets: (B, H, W), mixed alike.
            known: (B, H, W) int64, the true labels in ``targets``, IGNORE_INDEX on predicted pixels.
            predicted: what the teacher says of the unmixed images.
        """


@dataclass(frozen=True, slots=True)
class LambdaU:
    """U2PL's weight: the fewer pixels are reliable, the more each of them weighs (section 3.2).

    Args:
        maximum: largest lambda_u; null: no limit. Useful where ``min_confidence`` leaves few pixels reliable.
    """

    maximum: Above0 | None = None

    def lambda_u(self, targets: PseudoLabel) -> Tensor:
        """Scalar: all unlabeled pixels of the batch over the reliable ones."""
        ratio = targets.valid.sum() / targets.reliable.sum().clamp(min=1)
        return ratio if self.maximum is None else ratio.clamp(max=self.maximum)

    def __call__(
        self, loss: PixelLoss, logits: Tensor, targets: PseudoLabel, *, known: Tensor, predicted: PseudoLabel
    ) -> Tensor:
        """See :class:`Weighting`; true labels count as reliable pixels do."""
        return self.lambda_u(targets) * loss(logits, targets.target())


@dataclass(frozen=True, slots=True)
class ReliableShare:
    """FixMatch's weight (Sohn et al. 2020, arXiv 2001.07685), the inverse of lambda_u: the fewer pixels are reliable,
    the less they weigh together, for their loss is divided by the number of all of them."""

    def __call__(
        self, loss: PixelLoss, logits: Tensor, targets: PseudoLabel, *, known: Tensor, predicted: PseudoLabel
    ) -> Tensor:
        """See :class:`Weighting`; true labels count as reliable pixels do."""
        share = targets.reliable.sum() / targets.valid.sum().clamp(min=1)
        return share * loss(logits, targets.target())


@dataclass(frozen=True, slots=True)
class ConfidentShare:
    """DACS's weight (Tranheden et al. 2021, arXiv 2007.08702): that of predicted pixels is the share of the batch's
    predictions that are confident, and true labels weigh one.

    The threshold chooses no pixels: while the teacher is unsure, all of what it says weighs little.

    Args:
        threshold: a prediction is confident if its most likely class is at least this probable.
    """

    threshold: Share = 0.968

    def share(self, predicted: PseudoLabel) -> Tensor:
        """Scalar: of the valid pixels of unmixed images, those whose prediction is confident."""
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
