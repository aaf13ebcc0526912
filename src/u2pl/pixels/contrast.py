"""The contrastive loss L_c (U2PL, section 3.2): unreliable pixels are negatives of unlikely classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.pixels.memory_bank import MemoryBank
from u2pl.pixels.negative_keys import NegativeKeys, class_rank
from u2pl.pixels.prototypes import Prototypes
from u2pl.pixels.sampling import draw_members
from u2pl.structures import Positive, Share, Temperature, Width

#: Concatenates the (C, K, D) keys and (C, K) bool flags of all processes along K. All processes get the same result.
Gather = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def anchor_mask(target: Tensor, probability: Tensor, *, min_probability: float) -> Tensor:
    """(B, C, h, w) bool: the pixel is an anchor of class c if its target is c and p(c) > delta_p.

    Args:
        target: (B, h, w) int64, the label of labeled pixels, the pseudo-label of reliable ones, else IGNORE_INDEX.
        probability: (B, C, h, w), of the teacher.
        min_probability: delta_p.
    """
    classes = torch.arange(probability.shape[1], device=target.device).view(1, -1, 1, 1)
    return (target.unsqueeze(1) == classes) & (probability > min_probability)


def class_sums(embedding: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """(C, D) float32, the sum of each class's embeddings, and (C,) float32, their number.

    Args:
        embedding: (B, D, h, w).
        members: (B, C, h, w) bool, the pixels of each class.
    """
    weight = members.flatten(2).float()
    total = torch.bmm(weight, embedding.float().flatten(2).transpose(1, 2)).sum(dim=0)
    return total, weight.sum(dim=(0, 2))


def class_centres(embedding: Tensor, members: Tensor) -> Tensor:
    """(C, D): the mean embedding of each class; zero without members. Arguments as for :func:`class_sums`."""
    total, count = class_sums(embedding, members)
    return total / count.clamp(min=1).unsqueeze(1)


def info_nce(anchors: Tensor, positives: Tensor, negatives: Tensor, *, temperature: float) -> Tensor:
    """(C,): InfoNCE with cosine similarity, averaged over the M anchors of each class (equation 3 of the paper).

    Args:
        anchors: (C, M, D).
        positives: (C, D), shared by the anchors of a class.
        negatives: (C, N, D), shared by the anchors of a class.
        temperature: tau.
    """
    anchors = F.normalize(anchors, dim=-1)
    positive = anchors @ F.normalize(positives, dim=-1).unsqueeze(-1)
    negative = anchors @ F.normalize(negatives, dim=-1).transpose(1, 2)
    similarity = torch.cat((positive, negative), dim=-1) / temperature
    return -similarity.log_softmax(dim=-1)[..., 0].mean(dim=1)


def gather_pixels(embedding: Tensor, index: Tensor) -> Tensor:
    """(C, N, D) float32: the embeddings (B, D, h, w) of the pixels ``index`` (C, N), flat indices into (B, h, w)."""
    pixels = embedding.shape[-2] * embedding.shape[-1]
    return embedding.flatten(2)[index // pixels, :, index % pixels].float()


class UnreliableContrast(nn.Module):
    """L_c and its memory bank (section 3.2 of the paper).

    Args:
        num_classes: C.
        dim: D, length of an embedding.
        negative_keys: selects the pixels that are negatives of each class.
        min_probability: delta_p: a pixel is an anchor only if its own class is more probable than this.
        anchors: M, number of anchors per class, drawn anew in every step.
        negatives: N, number of negatives per anchor, drawn anew in every step.
        temperature: tau, temperature of the softmax over similarities.
        bank_size: number of keys that the queue of a class holds.
        background_bank_size: number of keys that the queue of class 0 holds; null: as many as the others.
        keys_per_step: largest number of negatives that enter a queue in one step, drawn evenly from all of them.
        gather: collects the keys of a step from all processes.
        prototypes: class centres that follow the anchors of every step.
        prototype_positives: the prototypes, not the class centres of the step, are the positives.
        keep_truth: the bank also holds the true classes of its keys, for a diagnosis.

    Raises:
        ValueError: the ranks are out of order, or a step has more keys than a queue holds.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        negative_keys: NegativeKeys = NegativeKeys(),
        min_probability: Share = 0.3,
        anchors: Width = 50,
        negatives: Width = 256,
        temperature: Temperature = 0.5,
        bank_size: Positive = 30_000,
        background_bank_size: Positive | None = None,
        keys_per_step: Positive = 1024,
        gather: Gather | None = None,
        prototypes: Prototypes | None = None,
        prototype_positives: bool = True,
        keep_truth: bool = False,
    ) -> None:
        super().__init__()
        negative_keys.ranks(num_classes)
        sizes = [background_bank_size or bank_size, *[bank_size] * (num_classes - 1)]
        if keys_per_step > min(sizes):
            raise ValueError(f"keys_per_step {keys_per_step} is more than a queue holds ({min(sizes)})")
        self.bank = MemoryBank(sizes, dim, keep_truth=keep_truth)
        self.negative_keys = negative_keys
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
            embedding: (B, D, h, w), of the student, with gradient.
            teacher_embedding: (B, D, h, w).
            teacher_probability: (B, C, h, w).
            target, label, unreliable: (B, h, w), see :func:`anchor_mask` and :class:`NegativeKeys`.
            rank: (B, C, h, w), :func:`class_rank` of ``teacher_probability`` if it is known already.
            absent: (B, C, h, w) bool, classes that the tags of the image rule out for a pixel; these are further
                negatives.
            truth: (B, h, w) int64, true classes for a bank that keeps them; the loss does not depend on it.

        Returns:
            Mean loss of the classes with anchors and negatives. Without one it is zero, still connected to the graph.
        """
        with torch.autocast(embedding.device.type, enabled=False):
            is_anchor = anchor_mask(target, teacher_probability, min_probability=self.min_probability)
            anchor_index, anchor_count = draw_members(by_class(is_anchor), self.anchors)
            rank = class_rank(teacher_probability.detach()) if rank is None else rank
            is_negative = self.negative_keys.mask(rank, label, unreliable)
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
        """(C, D): the positive of each class, from teacher embeddings (B, D, h, w) and the anchors (B, C, h, w)."""
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
