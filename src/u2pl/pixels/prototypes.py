"""Momentum prototypes of classes, and pseudo-labels denoised by the distance to them (ProDA, Zhang et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.structures import Share, Temperature


class Prototypes(nn.Module):
    """A running centre of each class's embeddings, ``c <- m c + (1 - m) centre of the step``.

    ``m = min(1 - 1/k, momentum)``, where k counts the updates of each class, so the first centre is used as it is. A
    class that is absent from a step keeps its prototype. (The released code counts the steps of all classes together
    and sets the prototypes of absent classes to zero.)

    Args:
        num_classes: C.
        dim: D, length of an embedding.
        momentum: largest momentum m of the running class centres.
        reduce: sums a tensor over processes, so that all have the same prototypes.
    """

    value: Tensor  #: (C, D) float32, zero before the first update
    updates: Tensor  #: (C,) int64, k of each class

    def __init__(
        self, num_classes: int, dim: int, *, momentum: Share = 0.999, reduce: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.momentum, self.reduce = momentum, reduce
        self.register_buffer("value", torch.zeros(num_classes, dim))
        self.register_buffer("updates", torch.zeros(num_classes, dtype=torch.long))

    @property
    def known(self) -> Tensor:
        """(C,) bool: classes that have a prototype."""
        return self.updates > 0

    @torch.no_grad()
    def update(self, total: Tensor, count: Tensor) -> None:
        """Update with a step: the sum (C, D) of each class's embeddings, and their number (C,)."""
        both = torch.cat((total.float(), count.float().unsqueeze(1)), dim=1)
        both = both if self.reduce is None else self.reduce(both)
        total, count = both[:, :-1], both[:, -1:]
        centre = total / count.clamp(min=1)
        fresh = (count > 0) & centre.isfinite().all(dim=1, keepdim=True)  # an overflow must not enter the mean
        self.updates += fresh.squeeze(1)
        momentum = (1 - 1 / self.updates.clamp(min=1)).clamp(max=self.momentum).unsqueeze(1)
        self.value.copy_(torch.where(fresh, centre.lerp(self.value, momentum), self.value))


@dataclass(frozen=True, slots=True)
class PrototypicalDenoising:
    """Reweights the teacher's probabilities by the distance of a pixel's embedding to each prototype.

    ProDA (arXiv 2101.10979): ``w_c = softmax_c(-|z - prototype_c| / temperature)``, where z and prototypes have unit
    length. A class without a prototype gets a neutral weight, the mean of the others: equal distances change nothing.
    The softmax of :meth:`PseudoLabel.from_logits` renormalises the product. (ProDA reweights predictions from before
    training. Here they are the teacher's current ones.)

    Args:
        prototypes: the class centres. They belong to the contrast, which saves and updates them.
        temperature: temperature of the softmax over distances, which are at most 2 (ProDA: 1).
    """

    prototypes: Prototypes
    temperature: Temperature = 1.0

    def weight(self, embedding: Tensor) -> Tensor:
        """(B, C, h, w) float32: w_c of the embeddings (B, D, h, w). Sums to one if all classes have a prototype."""
        with torch.autocast(embedding.device.type, enabled=False):
            pixels = F.normalize(embedding.float(), dim=1)
            cosine = torch.einsum("cd,bdhw->bchw", F.normalize(self.prototypes.value, dim=1), pixels)
        distance = (2 - 2 * cosine).clamp(min=0).sqrt()
        known = self.prototypes.known.view(1, -1, 1, 1)
        weight = (-distance / self.temperature).masked_fill(~known, -torch.inf).softmax(dim=1)
        return torch.where(known, weight, 1 / known.sum().clamp(min=1))

    @torch.no_grad()
    def __call__(self, logits: Tensor, embedding: Tensor) -> Tensor:
        """Denoise the teacher's logits (B, C, H, W) by its embeddings (B, D, h, w) of the same images."""
        # Interpolated like the network's scores: a mean of distributions is a distribution.
        weight = F.interpolate(self.weight(embedding), size=logits.shape[-2:], mode="bilinear", align_corners=True)
        return logits + weight.clamp(min=torch.finfo(weight.dtype).tiny).log()
