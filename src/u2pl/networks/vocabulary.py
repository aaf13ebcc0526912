"""The classes that an encoder was trained to tell apart, by which it can say what an image shows."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class Vocabulary(nn.Module):
    """A published classifier, such as ImageNet's, asked at each place of an image.

    It is not trained.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, *, saved: bool = False) -> None:
        """``weight`` (N, K), ``bias`` (N,): N classes of an encoder whose last features have K channels.

        It is ``saved`` only with what asks it after training.
        """
        super().__init__()
        self.register_buffer("weight", weight.float(), persistent=saved)
        self.register_buffer("bias", bias.float(), persistent=saved)

    def forward(self, features: Tensor) -> Tensor:
        """(B, K, h, w) -> (B, N) probabilities, their mean over all places: a small thing is not averaged away."""
        places = features.flatten(2).transpose(1, 2)
        return (places.float() @ self.weight.T + self.bias).softmax(dim=2).mean(dim=1)


def vocabulary_of(classifier: Mapping[str, Tensor], channels: int) -> Vocabulary | None:
    """What a file of an encoder's weights holds beside it, if that is a linear classifier of ``channels`` features."""
    tensors = {name.rpartition(".")[2]: tensor for name, tensor in classifier.items()}
    if set(tensors) != {"weight", "bias"} or len(classifier) != 2:
        return None
    weight, bias = tensors["weight"], tensors["bias"]
    fits = weight.ndim == 2 and weight.shape[1] == channels and bias.shape == weight.shape[:1]
    return Vocabulary(weight, bias) if fits else None
