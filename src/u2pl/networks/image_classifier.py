"""Classification of whole images: a linear classifier on an encoder that is not trained here."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.networks.image_encoder import ImageEncoder
from u2pl.networks.vocabulary import Vocabulary


class ImageClassifier(nn.Module):
    """log p(c is in the image) of classes that exclude each other, relative to the most likely one.

    Args:
        encoder: images -> rows (B, K).
        weight, bias: (C, K) and (C,), of a softmax over the classes ``told``.
        told: (C,) bool, the classes that exclude each other.
    """

    weight: Tensor
    bias: Tensor
    told: Tensor

    def __init__(self, encoder: ImageEncoder, *, weight: Tensor, bias: Tensor, told: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        for name, tensor in {"weight": weight, "bias": bias, "told": told}.items():
            self.register_buffer(name, tensor)

    @classmethod
    def from_state(cls, encoder: ImageEncoder, state: Mapping[str, Tensor], *, num_classes: int) -> ImageClassifier:
        """Build a classifier from a ``state_dict`` and an encoder of the same kind.

        Raises KeyError, RuntimeError or ValueError if the state is from another encoder or other classes.
        """
        encoder.vocabulary = Vocabulary.from_state(state, "encoder.vocabulary.") or encoder.vocabulary
        encoder.centre, encoder.spread = state["encoder.centre"], state["encoder.spread"]  # saved shapes may differ
        classifier = cls(encoder, weight=state["weight"], bias=state["bias"], told=state["told"])
        classifier.load_state_dict(state)
        with torch.no_grad():  # one forward pass checks that all sizes fit
            seen = classifier(torch.zeros(1, 3, 32, 32))
        if seen.shape != (1, num_classes):
            raise ValueError(f"{seen.shape[1]} classes, not {num_classes}")
        return classifier

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, C) float32, at most 0; 0 for classes that are not ``told``."""
        with torch.autocast(image.device.type, enabled=False):
            score = F.linear(self.encoder(image.float()), self.weight, self.bias).masked_fill(~self.told, -torch.inf)
        return (score - score.amax(dim=1, keepdim=True)).where(self.told, 0.0)
