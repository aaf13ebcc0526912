"""Negative learning: an unreliable pixel teaches the student which classes it is not, without embeddings or a bank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from u2pl.pixels.negative_keys import NegativeKeys


@dataclass(frozen=True, slots=True)
class NegativeLearning:
    """Mean of ``-log(1 - p_c)`` over unreliable pixels and the classes c they are sure not to be, r_l <= O(c) < r_h.

    The insight of U2PL in the space of logits. The loss on a complementary label is that of NLNL (Kim et al. 2019,
    arXiv 1908.07387).
    """

    negative_keys: NegativeKeys = NegativeKeys()

    def __call__(self, logits: Tensor, rank: Tensor, unreliable: Tensor) -> Tensor:
        """Scalar loss; without such a pixel it is zero, still connected to the graph.

        Args:
            logits: (B, C, h, w), the student's, with gradient.
            rank: (B, C, h, w), O(c) by the teacher, see :func:`~u2pl.pixels.negative_keys.class_rank`.
            unreliable: (B, h, w) bool.
        """
        unlikely = self.negative_keys.unlikely(rank, unreliable)
        return -log_complement(logits).where(unlikely, 0.0).sum() / unlikely.sum().clamp(min=1)


def log_complement(logits: Tensor) -> Tensor:
    """(B, C, ...) float32: log(1 - p_c), exact however near p_c is to one.

    Only the likeliest class can be near one, and its complement is the sum of all others.
    """
    log_probability = logits.float().log_softmax(dim=1)
    likeliest = torch.zeros_like(log_probability, dtype=torch.bool)
    likeliest.scatter_(1, log_probability.argmax(dim=1, keepdim=True), True)
    others = log_probability.masked_fill(likeliest, -torch.inf).logsumexp(dim=1, keepdim=True)
    probability = log_probability.exp().masked_fill(likeliest, 0.0)  # at most one half
    return torch.where(likeliest, others, torch.log1p(-probability))
