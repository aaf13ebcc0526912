"""The classifier that comes with an encoder's weights, which describes what an image shows."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class Vocabulary(nn.Module):
    """A published classifier, such as ImageNet's, applied at each position of a feature map.

    It is not trained.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, *, saved: bool = False) -> None:
        """``weight`` (N, K), ``bias`` (N,): N classes, and an encoder with K channels in its last features.

        If ``saved``, both are part of the state dict; only modules that use the classifier after training need that.
        """
        super().__init__()
        self.register_buffer("weight", weight.float(), persistent=saved)
        self.register_buffer("bias", bias.float(), persistent=saved)

    def forward(self, features: Tensor) -> Tensor:
        """(B, K, h, w) -> (B, N): mean of the probabilities at all positions, which keeps small objects visible."""
        places = features.flatten(2).transpose(1, 2)
        return (places.float() @ self.weight.T + self.bias).softmax(dim=2).mean(dim=1)


def vocabulary_of(classifier: Mapping[str, Tensor], channels: int) -> Vocabulary | None:
    """The vocabulary of the other tensors in a weights file; None unless they are a linear layer on ``channels``."""
    tensors = {name.rpartition(".")[2]: tensor for name, tensor in classifier.items()}
    if set(tensors) != {"weight", "bias"} or len(classifier) != 2:
        return None
    weight, bias = tensors["weight"], tensors["bias"]
    fits = weight.ndim == 2 and weight.shape[1] == channels and bias.shape == weight.shape[:1]
    return Vocabulary(weight, bias) if fits else None
