"""Counts that show why training on unlabeled images works or fails. They need true labels, which training never uses.

Each count is (2,) or (2, C) by class: how many, and out of how many, int64; or a float32 sum of values, and their
number. Counts of several batches add up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from u2pl.methods.keys import Keys
from u2pl.pixels.contrast import UnreliableContrast, anchor_mask
from u2pl.pixels.memory_bank import MemoryBank
from u2pl.pixels.reliability import Partition, Reliability, entropy_threshold
from u2pl.structures import IGNORE_INDEX, PseudoLabel

Counts = dict[str, Tensor]


def pseudo_label_counts(pseudo: PseudoLabel, truth: Tensor | None, *, num_classes: int) -> Counts:
    """``share``, ``accuracy`` and ``recall`` of reliable and of unreliable pixels.

    ``share`` is the part of all valid pixels that is in the set, by pseudo-label. ``accuracy`` is the part of its
    pixels that is labeled correctly, among those with a known true class, by pseudo-label. ``recall`` is the part of
    the valid pixels of a true class that is in the set and labeled correctly.

    Args:
        truth: (B, H, W) int64, IGNORE_INDEX where unknown; None: unknown everywhere.
    """
    truth = torch.full_like(pseudo.label, IGNORE_INDEX) if truth is None else truth
    valid = class_counts(pseudo.label, pseudo.valid, num_classes)
    of_class = class_counts(truth, pseudo.valid, num_classes)
    counts: Counts = {}
    for name, where in {"reliable": pseudo.reliable, "unreliable": pseudo.unreliable}.items():
        known = where & (truth != IGNORE_INDEX)
        right = class_counts(truth, known & (pseudo.label == truth), num_classes)
        counts[f"{name}/share"] = torch.stack((class_counts(pseudo.label, where, num_classes), valid))
        counts[f"{name}/accuracy"] = torch.stack((right, class_counts(pseudo.label, known, num_classes)))
        counts[f"{name}/recall"] = torch.stack((right, of_class))
    return counts


def threshold_counts(pseudo: PseudoLabel, reliability: Partition, progress: float) -> Counts:
    """``reliable/gamma``: the entropy threshold gamma_t of a batch; empty if one threshold does not divide its pixels.

    Of a batch without a valid pixel there is none: it counts 0 of 0.
    """
    if not isinstance(reliability, Reliability) or reliability.class_wise:
        return {}
    alpha = reliability.alpha_t(progress)
    gamma = entropy_threshold(pseudo.entropy, pseudo.valid, alpha, reliability.total)
    known = gamma.isfinite()
    return {"reliable/gamma": torch.stack((gamma.where(known, torch.zeros_like(gamma)), known.to(gamma.dtype)))}


def contrast_counts(contrast: UnreliableContrast, keys: Keys, *, labeled: int) -> Counts:
    """Counts of a contrast's anchors in a batch, and of its queues.

    Args:
        labeled: number of labeled images, which come first.
    """
    anchors = anchor_mask(keys.target, keys.probability, min_probability=contrast.min_probability)
    truth = keys.truth
    if truth is not None:  # labeled pixels are correct by definition, pasted or not
        truth = truth.masked_fill(keys.label != IGNORE_INDEX, IGNORE_INDEX)
    return anchor_counts(anchors, truth, labeled=labeled) | queue_counts(contrast.bank)


def anchor_counts(is_anchor: Tensor, truth: Tensor | None, *, labeled: int) -> Counts:
    """``anchors/classes``: classes with an anchor, per batch; ``anchors/accuracy``: correct unlabeled anchors.

    Args:
        is_anchor: (B, C, h, w) bool, from :func:`u2pl.pixels.contrast.anchor_mask`.
        truth: (B, h, w) int64, IGNORE_INDEX where unknown; None: unknown everywhere.
        labeled: number of labeled images, which come first. Their anchors are correct by definition and do not count.
    """
    classes = is_anchor.any(dim=3).any(dim=2).any(dim=0).sum()
    anchors = is_anchor[labeled:]
    truth = torch.full_like(anchors[:, 0], IGNORE_INDEX, dtype=torch.long) if truth is None else truth[labeled:]
    known = anchors & (truth != IGNORE_INDEX).unsqueeze(1)
    right = known & (truth.unsqueeze(1) == torch.arange(is_anchor.shape[1], device=truth.device).view(-1, 1, 1))
    return {
        "anchors/classes": torch.stack((classes, torch.ones_like(classes))),
        "anchors/accuracy": torch.stack((right.sum((0, 2, 3)), known.sum((0, 2, 3)))),
    }


def queue_counts(bank: MemoryBank) -> Counts:
    """``queue/fill``: keys in the queue of a class; ``queue/purity``: keys in it that belong to another class.

    A key of class c should not belong to class c. Keys of unknown class do not count; without ``truth`` all are
    unknown.
    """
    pure, known = torch.zeros_like(bank.fill), torch.zeros_like(bank.fill)
    for c, (start, fill) in enumerate(zip(bank.start.tolist(), bank.fill.tolist(), strict=True)):
        if bank.truth is not None:
            truth = bank.truth[start : start + fill]
            known[c] = (truth != IGNORE_INDEX).sum()
            pure[c] = known[c] - (truth == c).sum()
    return {
        "queue/fill": torch.stack((bank.fill, torch.ones_like(bank.fill))),
        "queue/purity": torch.stack((pure, known)),
    }


def agreement_counts(first: Tensor, second: Tensor, valid: Tensor) -> Counts:
    """``agreement``: valid pixels (B, H, W) where two logits (B, C, H, W) have the same most likely class."""
    same = first.argmax(dim=1) == second.argmax(dim=1)
    return {"agreement": torch.stack(((same & valid).sum(), valid.sum()))}


def class_counts(label: Tensor, where: Tensor, num_classes: int) -> Tensor:
    """(C,) int64: pixels of each class in (B, H, W) ``label`` where ``where`` is true, without ignored pixels."""
    inside = where & (label != IGNORE_INDEX)
    return torch.bincount(label.where(inside, num_classes).flatten(), minlength=num_classes + 1)[:num_classes]
