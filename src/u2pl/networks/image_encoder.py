"""A copy of the encoder before training, to compare whole images."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.networks.padding import pad
from u2pl.networks.vocabulary import Vocabulary

SIDE = 224  #: images are resized to this shorter side, as in the encoders' pretraining
_SMALL = 1e-3  # keeps almost constant features from being amplified


class ImageEncoder(nn.Module):
    """Images -> rows of length 1. The product of two rows is larger for images that are more similar.

    With a ``vocabulary``, rows are the square roots of its class probabilities; products are Bhattacharyya
    coefficients. Without one, rows are the mean of the last features, standardised to remove what all images share;
    products are cosine similarities.

    It copies its parts, is not trained, and stays in evaluation mode.

    Args:
        normalize: images in [0, 1] -> images normalised as in the encoder's training.
        encoder: normalised images -> the encoder's output.
        last: that output -> the last features (B, K, h, w).
        vocabulary: the classifier that comes with the encoder's weights, if any.
        multiple, minimum: sides are padded to a multiple of ``multiple`` and to at least ``minimum``.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        *,
        normalize: nn.Module,
        encoder: nn.Module,
        last: Callable[[Any], Tensor],
        vocabulary: Vocabulary | None = None,
        multiple: int = 1,
        minimum: int = 1,
    ) -> None:
        super().__init__()
        self.normalize, self.encoder = copy.deepcopy(normalize), copy.deepcopy(encoder)
        self.vocabulary = None if vocabulary is None else vocabulary.saved()
        self.last, self.multiple, self.minimum = last, multiple, minimum
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ImageEncoder:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], of any size -> (B, K) float32."""
        return self.compared(self.described(image))

    def described(self, image: Tensor) -> Tensor:
        """(B, K) float32 before standardisation: square roots of probabilities, or mean features."""
        scale = SIDE / min(image.shape[-2:])
        size = [max(1, round(scale * side)) for side in image.shape[-2:]]
        image = F.interpolate(image, size=size, mode="bilinear", antialias=scale < 1)
        padded = pad(self.normalize(image), multiple=self.multiple, minimum=self.minimum)
        features = self.last(self.encoder(padded)).float()
        return features.mean(dim=(2, 3)) if self.vocabulary is None else self.vocabulary(features).sqrt()

    def standardise(self, described: Tensor) -> None:
        """Standardise rows by mean and std of ``described`` (I, K) from now on. No effect with a vocabulary."""
        if self.vocabulary is None:
            self.centre, self.spread = described.mean(dim=0), described.std(dim=0) + _SMALL

    def compared(self, described: Tensor) -> Tensor:
        """(B, K) rows of length 1, from the output of :meth:`described`."""
        return F.normalize((described - self.centre) / self.spread, dim=1)
