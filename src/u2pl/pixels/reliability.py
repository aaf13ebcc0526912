"""Which pseudo-labels are reliable: the entropy threshold gamma_t and the partition by it (U2PL, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from u2pl.pixels.order import at_places, float_keys, float_of_keys
from u2pl.structures import IGNORE_INDEX, PseudoLabel, Reduce, Share


def entropy_threshold(entropy: Tensor, valid: Tensor, alpha: float, total: Reduce | None = None) -> Tensor:
    """gamma_t: the (1 - alpha) quantile of the entropy over the valid pixels of the whole batch.

    It interpolates linearly between order statistics, like :func:`torch.quantile`. That function refuses more than 16
    million elements and cannot leave out pixels without copying.

    Args:
        entropy: (B, H, W) float, nats.
        valid: (B, H, W) bool.
        alpha: share of unreliable pixels, in [0, 1].
        total: sums a tensor over processes, whose batches then count as one; None: there is one.

    Returns:
        A scalar tensor on the device of ``entropy``; infinity if no pixel is valid.
    """
    if total is not None:
        return _threshold_of_all(entropy, valid, alpha, total)
    ordered = entropy.masked_fill(~valid, torch.inf).flatten().sort().values  # invalid pixels go last
    position = (1.0 - alpha) * (valid.sum() - 1).clamp(min=0)
    lower = position.floor()
    last = len(ordered) - 1  # float32 rounds a position above 16 million, perhaps past the end
    below, above = (ordered[place.long().clamp(max=last)] for place in (lower, position.ceil()))
    return torch.where(position > lower, below.lerp(above, (position - lower).to(below.dtype)), below)


def _threshold_of_all(entropy: Tensor, valid: Tensor, alpha: float, total: Reduce) -> Tensor:
    """:func:`entropy_threshold` over the pixels of all processes."""
    ordered = float_keys(entropy.masked_fill(~valid, torch.inf)).flatten().sort().values
    position = (1.0 - alpha) * (total(valid.sum()) - 1).clamp(min=0)
    places = torch.stack((position.floor(), position.ceil())).long()
    found = at_places(ordered, places.new_zeros(1), places.unsqueeze(0), total)
    below, above = float_of_keys(found).squeeze(0)
    return torch.where(position > position.floor(), below.lerp(above, position - position.floor()), below)


def class_entropy_thresholds(
    entropy: Tensor, label: Tensor, valid: Tensor, alpha: float, total: Reduce | None = None
) -> Tensor:
    """gamma_t of each class: :func:`entropy_threshold` over the valid pixels with this label.

    One sort by class and entropy handles all pixels, whatever the number of classes.

    Args:
        entropy: (B, H, W) float, nats.
        label: (B, H, W) int64, below IGNORE_INDEX.
        valid: (B, H, W) bool.
        alpha: share of unreliable pixels in each class, in [0, 1].
        total: sums a tensor over processes, whose batches then count as one; None: there is one.

    Returns:
        (IGNORE_INDEX,) float32, by class; infinity for a class without a valid pixel.
    """
    ordered = (label.where(valid, IGNORE_INDEX) << 32) | float_keys(entropy)
    ordered = ordered.flatten().sort().values  # invalid pixels go last
    bounds = torch.searchsorted(ordered, torch.arange(IGNORE_INDEX + 1, device=entropy.device) << 32)
    start, count = bounds[:-1], bounds.diff()
    count = count if total is None else total(count)
    final = (bounds[1:] - 1).clamp(min=0)
    position = (1.0 - alpha) * (count - 1).clamp(min=0)
    lower = position.floor()
    places = torch.stack((lower, position.ceil()), dim=1).long()
    if total is None:
        found = ordered[torch.minimum(start.unsqueeze(1) + places, final.unsqueeze(1))]
    else:
        found = at_places(ordered, torch.arange(IGNORE_INDEX, device=entropy.device), places, total)
    below, above = float_of_keys(found).unbind(dim=1)
    gamma = torch.where(position > lower, below.lerp(above, (position - lower).to(below.dtype)), below)
    return gamma.where(count > 0, torch.inf)


def partition(
    pseudo: PseudoLabel,
    *,
    alpha: float,
    min_confidence: float = 0.0,
    class_wise: bool = False,
    total: Reduce | None = None,
) -> PseudoLabel:
    """Split the valid pixels into reliable (H < gamma_t, or H = 0) and unreliable (all others).

    A pixel of entropy 0 is reliable whatever gamma_t is. Otherwise a batch that the teacher is certain of, such as one
    of background only, would have no reliable pixel.

    Args:
        pseudo: from :meth:`PseudoLabel.from_logits`.
        alpha: alpha_t = alpha_0 (1 - t/T), the share of unreliable pixels (dynamic partition adjustment).
        min_confidence: an absolute limit in addition to the quantile: a reliable pixel must also have this confidence.
            0 is the paper's partition. The quantile calls 1 - alpha of the pixels reliable, however poor the teacher
            is.
        class_wise: gamma_t is a quantile over the pixels of each pseudo-class. A single quantile over all pixels calls
            most pixels of a rare, hard class unreliable. The rule stays H < gamma_t, so the least certain pixel of a
            class is unreliable. A class with one pixel, or with equal entropies above 0, has no reliable one.
        total: sums a tensor over processes: gamma_t is then a quantile over the pixels of all of them.
    """
    if class_wise:
        gamma = class_entropy_thresholds(pseudo.entropy, pseudo.label, pseudo.valid, alpha, total)[pseudo.label]
    else:
        gamma = entropy_threshold(pseudo.entropy, pseudo.valid, alpha, total)
    sure = (pseudo.entropy < gamma) | (pseudo.entropy <= 0)
    reliable = pseudo.valid & sure & (pseudo.confidence >= min_confidence)
    return replace(pseudo, reliable=reliable, unreliable=pseudo.valid & ~reliable)


class Partition(Protocol):
    """Splits pseudo-labels into reliable and unreliable ones."""

    def partition(self, pseudo: PseudoLabel, progress: float) -> PseudoLabel:
        """Split the valid pixels of pseudo-labels, at the progress t / T of training."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Decides which pseudo-labels are reliable over the course of training.

    Args:
        alpha: alpha_0, the share of unreliable pixels when training begins.
        dynamic: the share of unreliable pixels falls to 0 during training (the paper's DPA); false: it stays at
            alpha_0.
        min_confidence: smallest confidence of a reliable pixel, in addition to the entropy threshold; 0 in the paper.
        class_wise: compare a pixel only with its own pseudo-class, so that rare classes keep reliable pixels.
        total: sums a tensor over processes, whose batches then count as one; None: there is one.
    """

    alpha: Share = 0.20
    dynamic: bool = True
    min_confidence: Share = 0.0
    class_wise: bool = False
    total: Reduce | None = None

    def alpha_t(self, progress: float) -> float:
        """alpha_t = alpha_0 (1 - t/T): the share of unreliable pixels."""
        return self.alpha * (1 - progress) if self.dynamic else self.alpha

    def partition(self, pseudo: PseudoLabel, progress: float) -> PseudoLabel:
        """Split the valid pixels, see :func:`partition`."""
        return partition(
            pseudo,
            alpha=self.alpha_t(progress),
            min_confidence=self.min_confidence,
            class_wise=self.class_wise,
            total=self.total,
        )


@dataclass(frozen=True, slots=True)
class ConfidenceThreshold:
    """FixMatch's rule (Sohn et al. 2020): a pixel is reliable if its most likely class is probable enough.

    Args:
        threshold: smallest probability of the most likely class.
    """

    threshold: Share = 0.95

    def partition(self, pseudo: PseudoLabel, progress: float) -> PseudoLabel:
        """Split the valid pixels. The result does not depend on ``progress``."""
        reliable = pseudo.valid & (pseudo.confidence >= self.threshold)
        return replace(pseudo, reliable=reliable, unreliable=pseudo.valid & ~reliable)
