"""An encoder as it is before training, by which images are compared as a whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.networks.padding import pad
from u2pl.networks.vocabulary import Vocabulary

SIDE = 224  #: images are resized to this shorter side, for which encoders are pretrained
_SMALL = 1e-3  # a feature that hardly differs between images is not blown up


class ImageEncoder(nn.Module):
    """Images -> rows of length 1: the more alike two images are, the larger is the product of their rows.

    An encoder that comes with the classifier of its training says which of those classes an image shows: rows are the
    roots of probabilities, their products Bhattacharyya coefficients. One without has the mean of its last features,
    standardised, as the mean of all images says nothing about any: the products are cosine similarities.

    It is a copy of its parts, is not trained, and stays in evaluation mode.

    Args:
        normalize: images in [0, 1] -> what the encoder was trained with.
        encoder: normalised images -> all that it returns, of which ``last`` takes the last features (B, K, h, w).
        vocabulary: the classifier, if there is one.
        multiple, minimum: of the sides that the encoder takes.
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
        self.vocabulary = None if vocabulary is None else Vocabulary(vocabulary.weight, vocabulary.bias, saved=True)
        self.last, self.multiple, self.minimum = last, multiple, minimum
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ImageEncoder:
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], of any size -> (B, K) float32."""
        return self.compared(self.described(image))

    def described(self, image: Tensor) -> Tensor:
        """(B, K) float32, before images are compared: roots of probabilities, or mean features."""
        scale = SIDE / min(image.shape[-2:])
        size = [max(1, round(scale * side)) for side in image.shape[-2:]]
        image = F.interpolate(image, size=size, mode="bilinear", antialias=scale < 1)
        padded = pad(self.normalize(image), multiple=self.multiple, minimum=self.minimum)
        features = self.last(self.encoder(padded)).float()
        return features.mean(dim=(2, 3)) if self.vocabulary is None else self.vocabulary(features).sqrt()

    def standardise(self, described: Tensor) -> None:
        """Compare images, from now on, by how they differ from these (I, K); roots of probabilities need no such."""
        if self.vocabulary is None:
            self.centre, self.spread = described.mean(dim=0), described.std(dim=0) + _SMALL

    def compared(self, described: Tensor) -> Tensor:
        """(B, K) rows of length 1 of what :meth:`described` tells."""
        return F.normalize((described - self.centre) / self.spread, dim=1)
