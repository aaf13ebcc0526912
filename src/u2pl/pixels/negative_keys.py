"""Which pixels are negative keys of which classes (U2PL, section 3.2): the rank O(c) of a class decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from u2pl.structures import IGNORE_INDEX, PseudoLabel


def class_rank(probability: Tensor) -> Tensor:
    """O(c): rank of each class among (B, C, ...) probabilities, 0 for the likeliest. The lower index wins a tie."""
    classes = probability.shape[1]
    rank = torch.zeros_like(probability, dtype=torch.int16)
    for c in range(classes - 1):  # comparing pairs of classes is many times faster than sorting each pixel
        ahead = probability[:, c : c + 1] >= probability[:, c + 1 :]
        rank[:, c + 1 :] += ahead
        rank[:, c] += classes - 1 - c - ahead.sum(dim=1, dtype=torch.int16)
    return rank


def default_low_rank(num_classes: int) -> int:
    """r_l for C classes: 3 as in the paper, and fewer with few classes, so that ranks remain above it."""
    return min(3, max(1, num_classes // 4))


def default_high_rank(num_classes: int) -> int:
    """r_h for C classes: 20 as in the paper, but at most C."""
    return min(20, num_classes)


@dataclass(frozen=True, slots=True)
class NegativeKeys:
    """Selects the pixels that are negative keys of each class (section 3.2 of the paper).

    An unreliable pixel is a negative of the classes with ``r_l <= O(c) < r_h``: it almost certainly belongs to none of
    these. A labeled pixel is a hard negative of the other classes with ``O(c) < r_l``.

    Args:
        low_rank: r_l, first rank of the negative classes; null: a quarter of the number of classes, from 1 to 3.
        high_rank: r_h, rank after the last negative class, at most the number of classes; null: 20, or all if fewer.
        rank_threshold: use r_l and r_h (the paper's PRT); false: r_l is 1 and r_h is the number of classes.
        pixels: unlabeled pixels that serve as negatives: ``unreliable`` (the paper), ``reliable`` or ``all``.
        tags: with image tags, a pixel is also a negative of each class that its image is not tagged with.
    """

    low_rank: int | None = None
    high_rank: int | None = None
    rank_threshold: bool = True
    pixels: Literal["unreliable", "reliable", "all"] = "unreliable"
    tags: bool = True

    def ranks(self, num_classes: int) -> tuple[int, int]:
        """r_l and r_h for C classes. Raises ValueError if no rank lies between them: the loss would be zero."""
        low, high = 1, num_classes
        if self.rank_threshold:
            low = default_low_rank(num_classes) if self.low_rank is None else self.low_rank
            high = default_high_rank(num_classes) if self.high_rank is None else self.high_rank
        if not 0 < low < high <= num_classes:
            raise ValueError(
                f"low_rank and high_rank: {low} and {high} leave no rank between them; "
                f"needed: 0 < low_rank < high_rank <= {num_classes}, the number of classes"
            )
        return low, high

    def candidates(self, pseudo: PseudoLabel) -> Tensor:
        """(B, H, W) bool: unlabeled pixels that serve as negatives."""
        return {"unreliable": pseudo.unreliable, "reliable": pseudo.reliable, "all": pseudo.valid}[self.pixels]

    def unlikely(self, rank: Tensor, unreliable: Tensor) -> Tensor:
        """(B, C, h, w) bool: the pixel is unreliable and class c is very unlikely, r_l <= O(c) < r_h.

        Args:
            rank: (B, C, h, w), O(c) from :func:`class_rank`.
            unreliable: (B, h, w) bool, from :meth:`candidates`.
        """
        low, high = self.ranks(rank.shape[1])
        return unreliable.unsqueeze(1) & (rank >= low) & (rank < high)

    def mask(self, rank: Tensor, label: Tensor, unreliable: Tensor) -> Tensor:
        """(B, C, h, w) bool: the pixel is a negative key of class c.

        Args:
            rank: (B, C, h, w), O(c) from :func:`class_rank`.
            label: (B, h, w) int64, true labels; IGNORE_INDEX on every unlabeled pixel.
            unreliable: (B, h, w) bool, from :meth:`candidates`.
        """
        low, _ = self.ranks(rank.shape[1])
        classes = torch.arange(rank.shape[1], device=rank.device).view(1, -1, 1, 1)
        labeled = (label != IGNORE_INDEX).unsqueeze(1)
        hard = labeled & (label.unsqueeze(1) != classes) & (rank < low)
        return hard | self.unlikely(rank, unreliable)
