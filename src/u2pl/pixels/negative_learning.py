"""Negative learning: unreliable pixels train the student on the classes they are not, without embeddings or a bank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from u2pl.pixels.losses import divisor
from u2pl.pixels.negative_keys import NegativeKeys
from u2pl.structures import Reduce


@dataclass(frozen=True, slots=True)
class NegativeLearning:
    """Mean of ``-log(1 - p_c)`` over unreliable pixels and their negative classes c, r_l <= O(c) < r_h.

    This is U2PL's idea applied to logits. The loss for complementary labels is from NLNL (Kim et al. 2019, arXiv
    1908.07387).

    Args:
        negative_keys: selects the negative classes of a pixel.
        average: averages a tensor over processes, whose pixels then count together; None: there is one.
    """

    negative_keys: NegativeKeys = NegativeKeys()
    average: Reduce | None = None

    def __call__(self, logits: Tensor, rank: Tensor, unreliable: Tensor) -> Tensor:
        """Scalar loss. Without an unreliable pixel it is zero, still connected to the graph.

        Args:
            logits: (B, C, h, w), of the student, with gradient.
            rank: (B, C, h, w), O(c) of the teacher, see :func:`~u2pl.pixels.negative_keys.class_rank`.
            unreliable: (B, h, w) bool.
        """
        unlikely = self.negative_keys.unlikely(rank, unreliable)
        return -log_complement(logits).where(unlikely, 0.0).sum() / divisor(unlikely.sum(), self.average)


def log_complement(logits: Tensor) -> Tensor:
    """(B, C, ...) float32: log(1 - p_c), exact even if p_c is close to one.

    Only the likeliest class can be close to one. Its complement is the sum of all others.
    """
    log_probability = logits.float().log_softmax(dim=1)
    likeliest = torch.zeros_like(log_probability, dtype=torch.bool)
    likeliest.scatter_(1, log_probability.argmax(dim=1, keepdim=True), True)
    others = log_probability.masked_fill(likeliest, -torch.inf).logsumexp(dim=1, keepdim=True)
    probability = log_probability.exp().masked_fill(likeliest, 0.0)  # at most one half
    return torch.where(likeliest, others, torch.log1p(-probability))
