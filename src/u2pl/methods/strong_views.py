"""Strong views: images and their pseudo-labels are mixed with the same masks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from u2pl.pixels.adaptive_mixing import AdaptiveCopyPaste
from u2pl.pixels.jitter import jittered
from u2pl.pixels.mixing import CutMix, Mix, Mixing
from u2pl.structures import Batch, Jitter, PseudoLabel, SegmentationOutput


class DrawsJitter(Protocol):
    """Such as :class:`u2pl.data.photometric.Photometric`."""

    def draw(self, count: int) -> Jitter:
        """Photometric jitter of ``count`` images, in the host's memory."""


@dataclass(frozen=True, slots=True)
class MixedViews:
    """The strong views of a step: V views of each of B_u unlabeled images."""

    image: Tensor  #: (V B_u, 3, H, W) float32
    pseudo: PseudoLabel  #: (V B_u, H, W), mixed like the images
    mixes: list[Mix]  #: one per strong view
    complementary: bool = False  #: whether the two views of an image get complementary channels of its features

    def true_label(self) -> Tensor:
        """(V B_u, H, W) int64: the label of mixed pixels from labeled images, IGNORE_INDEX elsewhere."""
        return torch.cat([mix.true_label() for mix in self.mixes])

    def follow(self, unlabeled: Tensor, labeled: Tensor) -> Tensor:
        """(B_l + V B_u, ...): values of labeled images, then values of unlabeled images, mixed like the images."""
        return torch.cat((labeled, *(mix.apply(unlabeled, labeled) for mix in self.mixes)))


class StrongViews(nn.Module):
    """Mixes the strong views of a batch. All semi-supervised methods share it.

    Args:
        mixing: draws one mask per strong view.
        jitter: photometric jitter of the mixed images, for strong views without jitter.
        copy_paste: AEL's adaptive copy-paste between labeled images (Hu et al. 2021, arXiv 2110.05474). Its running
            class confidence follows the student's labeled pixels. An adaptive ``mixing`` uses the same confidence.
        complementary: the student drops complementary channels of two strong views (UniMatch V2, Yang et al. 2025,
            arXiv 2410.10777).
    """

    def __init__(
        self,
        mixing: Mixing | None = None,
        *,
        jitter: DrawsJitter | None = None,
        copy_paste: AdaptiveCopyPaste | None = None,
        complementary: bool = False,
    ) -> None:
        super().__init__()
        self.complementary = complementary
        self.mixing: Mixing = CutMix() if mixing is None else mixing
        self.jitter, self.copy_paste = jitter, copy_paste
        self.class_confidence = None if copy_paste is None else copy_paste.confidence  # saved and moved with the method

    def forward(self, batch: Batch, pseudo: PseudoLabel) -> MixedViews:
        """Mix strong images and the pseudo-labels (B_u, H, W) of their weak views with the same masks."""
        _, strong = batch.unlabeled_views()
        mixes = [self.mixing.draw(pseudo, batch.label) for _ in strong]
        mixed = [mix.apply(image, batch.image) for mix, image in zip(mixes, strong, strict=True)]
        images = torch.cat(mixed)
        if self.jitter is not None:
            values = self.jitter.draw(len(images)).values.to(images.device, non_blocking=True)
            images = jittered(images, Jitter(values))
        labels = PseudoLabel.cat([mix.pseudo_label(pseudo) for mix in mixes])
        return MixedViews(images, labels, mixes, complementary=self.complementary)

    def paste_labeled(self, batch: Batch) -> Batch:
        """The batch with rare classes pasted between its labeled images, if there is a ``copy_paste``."""
        if self.copy_paste is None:
            return batch
        image, label = self.copy_paste.apply(batch.image, batch.label)
        return replace(batch, image=image, label=label)

    def observe(self, output: SegmentationOutput, label: Tensor) -> None:
        """Update the running class confidence with the student's output for labeled images."""
        if self.class_confidence is not None:
            self.class_confidence.update(output.logits.detach(), label)
