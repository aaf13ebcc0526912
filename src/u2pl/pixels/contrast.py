"""The contrastive term L_c (U2PL, section 3.2): unreliable pixels are sure not to be most classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.pixels.memory_bank import MemoryBank
from u2pl.pixels.prototypes import Prototypes
from u2pl.pixels.sampling import draw_members
from u2pl.structures import IGNORE_INDEX

#: Concatenates the (C, K, D) keys and (C, K) bool flags of all processes along K, alike in each of them.
Gather = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def class_rank(probability: Tensor) -> Tensor:
    """O(c): rank of each class among (B, C, ...) probabilities, 0 for the most likely; the lower index wins a tie."""
    classes = probability.shape[1]
    rank = torch.zeros_like(probability, dtype=torch.int16)
    for c in range(classes - 1):  # comparing pairs of classes is many times faster than sorting each pixel
        ahead = probability[:, c : c + 1] >= probability[:, c + 1 :]
        rank[:, c + 1 :] += ahead
        rank[:, c] += classes - 1 - c - ahead.sum(dim=1, dtype=torch.int16)
    return rank


def anchor_mask(target: Tensor, probability: Tensor, *, min_probability: float) -> Tensor:
    """(B, C, h, w) bool: pixel is an anchor of class c when its target is c and p(c) > delta_p.

    Args:
        target: (B, h, w) int64, the label of labeled pixels and the pseudo-label of reliable ones, else IGNORE_INDEX.
        probability: (B, C, h, w), the teacher's.
        min_probability: delta_p.
    """
    classes = torch.arange(probability.shape[1], device=target.device).view(1, -1, 1, 1)
    return (target.unsqueeze(1) == classes) & (probability > min_probability)


def negative_mask(rank: Tensor, label: Tensor, unreliable: Tensor, *, low_rank: int, high_rank: int) -> Tensor:
    """(B, C, h, w) bool: pixel is a negative key of class c.

    Args:
        rank: (B, C, h, w), O(c) of :func:`class_rank`.
        label: (B, h, w) int64, true labels; IGNORE_INDEX on every unlabeled pixel.
        unreliable: (B, h, w) bool, unlabeled pixels with H >= gamma_t.
        low_rank: r_l. A labeled pixel is a hard negative of the other classes ranked below it.
        high_rank: r_h. An unreliable pixel is a negative of the classes with r_l <= O(c) < r_h.
    """
    classes = torch.arange(rank.shape[1], device=rank.device).view(1, -1, 1, 1)
    labeled = (label != IGNORE_INDEX).unsqueeze(1)
    hard = labeled & (label.unsqueeze(1) != classes) & (rank < low_rank)
    return hard | unlikely_classes(rank, unreliable, low_rank=low_rank, high_rank=high_rank)


def unlikely_classes(rank: Tensor, unreliable: Tensor, *, low_rank: int, high_rank: int) -> Tensor:
    """(B, C, h, w) bool: pixel is unreliable, and sure not to be class c: r_l <= O(c) < r_h."""
    return unreliable.unsqueeze(1) & (rank >= low_rank) & (rank < high_rank)


def class_sums(embedding: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """(C, D) float32, the sum of the embeddings of each class's members, and (C,) float32, how many they are.

    Args:
        embedding: (B, D, h, w).
        members: (B, C, h, w) bool.
    """
    weight = members.flatten(2).float()
    total = torch.bmm(weight, embedding.float().flatten(2).transpose(1, 2)).sum(dim=0)
    return total, weight.sum(dim=(0, 2))


def class_centres(embedding: Tensor, members: Tensor) -> Tensor:
    """(C, D): mean embedding of each class's members; zero without any. Arguments of :func:`class_sums`."""
    total, count = class_sums(embedding, members)
    return total / count.clamp(min=1).unsqueeze(1)


def info_nce(anchors: Tensor, positives: Tensor, negatives: Tensor, *, temperature: float) -> Tensor:
    """(C,): InfoNCE with cosine similarity, mean over the M anchors of each class (equation 3 of the paper).

    Args:
        anchors: (C, M, D). positives: (C, D), shared by the anchors of a class. negatives: (C, N, D), shared too.
        temperature: tau.
    """
    anchors = F.normalize(anchors, dim=-1)
    positive = anchors @ F.normalize(positives, dim=-1).unsqueeze(-1)
    negative = anchors @ F.normalize(negatives, dim=-1).transpose(1, 2)
    similarity = torch.cat((positive, negative), dim=-1) / temperature
    return -similarity.log_softmax(dim=-1)[..., 0].mean(dim=1)


def gather_pixels(embedding: Tensor, index: Tensor) -> Tensor:
    """(C, N, D) float32: the embeddings (B, D, h, w) of the pixels ``index`` (C, N), counted through (B, h, w)."""
    pixels = embedding.shape[-2] * embedding.shape[-1]
    return embedding.flatten(2)[index // pixels, :, index % pixels].float()


class UnreliableContrast(nn.Module):
    """L_c and its memory bank.

    Args:
        num_classes: C.
        dim: D, length of an embedding.
        low_rank, high_rank: r_l and r_h, ``0 < r_l < r_h <= C``; defaults ``min(3, max(1, C // 4))``, ``min(20, C)``.
        min_probability: delta_p.
        anchors, negatives: M anchors per class, N negatives, drawn afresh in every step.
        temperature: tau.
        bank_size: capacity of each class's queue, one number or one per class.
        keys_per_step: at most so many of a step's negatives enter a queue, drawn evenly among all of them.
        gather: shares the keys of a step among processes.
        prototypes: follow the centres of the anchors in every step.
        prototype_positives: they, and not the centres of a step, are the positives.
        keep_truth: the bank also holds the true classes of its keys, for a diagnosis.

    Raises:
        ValueError: ranks out of order, or more keys per step than a queue holds.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        low_rank: int | None = None,
        high_rank: int | None = None,
        min_probability: float = 0.3,
        anchors: int = 50,
        negatives: int = 256,
        temperature: float = 0.5,
        bank_size: int | Sequence[int] = 30_000,
        keys_per_step: int = 1024,
        gather: Gather | None = None,
        prototypes: Prototypes | None = None,
        prototype_positives: bool = True,
        keep_truth: bool = False,
    ) -> None:
        super().__init__()
        self.low_rank = default_low_rank(num_classes) if low_rank is None else low_rank
        self.high_rank = min(20, num_classes) if high_rank is None else high_rank
        if not 0 < self.low_rank < self.high_rank <= num_classes:
            raise ValueError(
                f"low_rank {self.low_rank} and high_rank {self.high_rank} leave no rank between them: "
                f"0 < low_rank < high_rank <= {num_classes} (the number of classes)"
            )
        sizes = [bank_size] * num_classes if isinstance(bank_size, int) else list(bank_size)
        if keys_per_step > min(sizes):
            raise ValueError(f"keys_per_step {keys_per_step} is more than a queue holds ({min(sizes)})")
        self.bank = MemoryBank(sizes, dim, keep_truth=keep_truth)
        self.min_probability, self.temperature = min_probability, temperature
        self.anchors, self.negatives, self.keys_per_step = anchors, negatives, keys_per_step
        self.gather = gather
        self.prototypes, self.prototype_positives = prototypes, prototype_positives

    def forward(
        self,
        embedding: Tensor,
        teacher_embedding: Tensor,
        teacher_probability: Tensor,
        *,
        target: Tensor,
        label: Tensor,
        unreliable: Tensor,
        rank: Tensor | None = None,
        absent: Tensor | None = None,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Push this step's negatives, then contrast anchors with their class centre and with drawn negatives.

        Args:
            embedding: (B, D, h, w), the student's, with gradient.
            teacher_embedding: (B, D, h, w). teacher_probability: (B, C, h, w).
            target, label, unreliable: (B, h, w), see :func:`anchor_mask` and :func:`negative_mask`.
            rank: (B, C, h, w), :func:`class_rank` of ``teacher_probability`` where it is known already.
            absent: (B, C, h, w) bool, classes that a pixel is known not to be, by the tags of its image: further
                negatives.
            truth: (B, h, w) int64, true classes for a bank that keeps them; the loss does not depend on it.

        Returns:
            Mean loss of the classes that have anchors and negatives; zero, still connected to the graph, without one.
        """
        with torch.autocast(embedding.device.type, enabled=False):
            is_anchor = anchor_mask(target, teacher_probability, min_probability=self.min_probability)
            anchor_index, anchor_count = draw_members(by_class(is_anchor), self.anchors)
            rank = class_rank(teacher_probability.detach()) if rank is None else rank
            is_negative = negative_mask(rank, label, unreliable, low_rank=self.low_rank, high_rank=self.high_rank)
            self._push(teacher_embedding, is_negative if absent is None else is_negative | absent, truth)
            loss = info_nce(
                gather_pixels(embedding, anchor_index),
                self._positives(teacher_embedding.detach(), is_anchor),
                self.bank.draw(self.negatives),
                temperature=self.temperature,
            )
            active = (anchor_count > 0) & (self.bank.fill > 0)
            active = active if self.prototypes is None else active & self.prototypes.known
            return loss.where(active, 0.0).sum() / active.sum().clamp(min=1)

    def _positives(self, embedding: Tensor, is_anchor: Tensor) -> Tensor:
        """(C, D): the positive of each class, of the teacher's embeddings (B, D, h, w) of its anchors (B, C, h, w)."""
        if self.prototypes is not None:
            self.prototypes.update(*class_sums(embedding, is_anchor))
            if self.prototype_positives:
                return self.prototypes.value
        return class_centres(embedding, is_anchor)

    @torch.no_grad()
    def _push(self, embedding: Tensor, is_negative: Tensor, truth: Tensor | None) -> None:
        index, count = draw_members(by_class(is_negative), self.keys_per_step)
        keys = gather_pixels(embedding, index)
        keep = torch.arange(self.keys_per_step, device=count.device) < count.unsqueeze(1)
        known = None if truth is None else truth.flatten()[index]
        if self.gather is not None:
            if known is not None:
                known = self.gather(known.unsqueeze(-1), keep)[0].squeeze(-1)
            keys, keep = self.gather(keys, keep)
        self.bank.push(keys, keep, known)


def by_class(mask: Tensor) -> Tensor:
    """(B, C, h, w) -> (C, B * h * w)."""
    return mask.transpose(0, 1).flatten(1)


def default_low_rank(num_classes: int) -> int:
    """r_l for C classes: 3 as in the paper, less with few classes, so that ranks remain beyond it."""
    return min(3, max(1, num_classes // 4))
