"""DACS's weight of L_u, in the place of lambda_u (Tranheden et al. 2021, arXiv 2007.08702)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from u2pl.methods.base import PixelLoss
from u2pl.structures import IGNORE_INDEX, PseudoLabel


@dataclass(frozen=True, slots=True)
class ConfidentShare:
    """Predicted pixels weigh the share of the batch's predictions that are confident, true labels weigh one.

    The threshold chooses no pixels: while the teacher is unsure, all of what it says weighs little.
    """

    threshold: float = 0.968  #: probability of the most likely class

    def share(self, predicted: PseudoLabel) -> Tensor:
        """Scalar: of the valid pixels of unmixed images, those whose prediction is confident."""
        confident = predicted.valid & (predicted.confidence >= self.threshold)
        return confident.sum() / predicted.valid.sum().clamp(min=1)

    def __call__(
        self, loss: PixelLoss, logits: Tensor, target: Tensor, *, known: Tensor, predicted: PseudoLabel
    ) -> Tensor:
        """Weighted mean loss over the pixels of ``target`` that are not ignored.

        Args:
            loss: its mean over pixels.
            logits: (B, C, H, W). target: (B, H, W) int64.
            known: (B, H, W) int64, the true labels in ``target``, IGNORE_INDEX on predicted pixels.
            predicted: what the teacher says of the unmixed images.
        """
        own = target.masked_fill(known != IGNORE_INDEX, IGNORE_INDEX)
        count, known_count = ((part != IGNORE_INDEX).sum() for part in (own, known))
        total = self.share(predicted) * count * loss(logits, own) + known_count * loss(logits, known)
        return total / (count + known_count).clamp(min=1)
