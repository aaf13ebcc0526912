"""Which pseudo-labels to believe: the entropy threshold gamma_t and the partition it makes (U2PL, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from u2pl.structures import PseudoLabel


def entropy_threshold(entropy: Tensor, valid: Tensor, alpha: float) -> Tensor:
    """gamma_t: the (1 - alpha) quantile of the entropy over the valid pixels of the whole batch.

    Linear interpolation between order statistics, as :func:`torch.quantile`, which refuses more than 16 million
    elements and cannot leave pixels out without copying them.

    Args:
        entropy: (B, H, W) float, nats.
        valid: (B, H, W) bool.
        alpha: share of pixels to hold unreliable, in [0, 1].

    Returns:
        A scalar tensor on the device of ``entropy``; infinity when no pixel is valid.
    """
    ordered = entropy.masked_fill(~valid, torch.inf).flatten().sort().values  # invalid pixels go last
    position = (1.0 - alpha) * (valid.sum() - 1).clamp(min=0)
    lower = position.floor()
    last = len(ordered) - 1  # single precision rounds a position past 16 million, perhaps beyond the end
    below, above = (ordered[place.long().clamp(max=last)] for place in (lower, position.ceil()))
    return torch.where(position > lower, below.lerp(above, (position - lower).to(below.dtype)), below)


def partition(pseudo: PseudoLabel, *, alpha: float, min_confidence: float = 0.0) -> PseudoLabel:
    """Split the valid pixels into reliable (H < gamma_t) and unreliable (all others).

    Args:
        pseudo: as :meth:`PseudoLabel.from_logits` makes it.
        alpha: alpha_t = alpha_0 (1 - t/T), the share held unreliable (dynamic partition adjustment).
        min_confidence: an absolute floor beside the quantile: a reliable pixel must also be this confident. 0: the
            paper's partition. The quantile calls 1 - alpha of the pixels reliable however poor the teacher is.
    """
    gamma = entropy_threshold(pseudo.entropy, pseudo.valid, alpha)
    reliable = pseudo.valid & (pseudo.entropy < gamma) & (pseudo.confidence >= min_confidence)
    return replace(pseudo, reliable=reliable, unreliable=pseudo.valid & ~reliable)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Which pseudo-labels to believe over the course of training."""

    alpha_0: float = 0.20  #: share of pixels held unreliable at the start
    dynamic: bool = True  #: the share falls to 0 with the progress of training (DPA); else it stays
    min_confidence: float = 0.0  #: absolute floor of a reliable pixel beside the quantile; 0 in the paper

    def alpha(self, progress: float) -> float:
        """alpha_t = alpha_0 (1 - t/T): the share of pixels held unreliable."""
        return self.alpha_0 * (1 - progress) if self.dynamic else self.alpha_0

    def partition(self, pseudo: PseudoLabel, progress: float) -> PseudoLabel:
        """Split the valid pixels, see :func:`partition`."""
        return partition(pseudo, alpha=self.alpha(progress), min_confidence=self.min_confidence)
