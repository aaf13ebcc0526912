"""The classifier that comes with an encoder's weights, which describes what an image shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ACTIVATIONS = {"ReLU": F.relu, "ReLU6": F.relu6, "SiLU": F.silu}
_HEAD = ("conv_head.weight", *(f"bn2.{name}" for name in ("weight", "bias", "running_mean", "running_var")))


class Vocabulary(nn.Module):
    """A published classifier, such as ImageNet's, applied at each position of a feature map.

    It is not trained. EfficientNets have one more layer between their features and their classifier, the ``head``.
    """

    weight: Tensor
    bias: Tensor
    head_weight: Tensor | None
    head_bias: Tensor | None
    head_activation: Tensor | None

    def __init__(
        self, weight: Tensor, bias: Tensor, *, head: tuple[Tensor, Tensor, int] | None = None, saved: bool = False
    ) -> None:
        """``weight`` (N, M), ``bias`` (N,): N classes. ``head``: (M, K), (M,) and the number of an activation.

        K are the channels of the encoder's last features; without a head, M = K. If ``saved``, all are part of the
        state dict; only modules that use the classifier after training need that.
        """
        super().__init__()
        self.register_buffer("weight", weight.float(), persistent=saved)
        self.register_buffer("bias", bias.float(), persistent=saved)
        tensors = (None,) * 3 if head is None else (head[0], head[1], torch.tensor(head[2]))
        for name, tensor in zip(("weight", "bias", "activation"), tensors, strict=True):
            self.register_buffer(f"head_{name}", tensor, persistent=saved)
        self.number = None if head is None else head[2]
        self.activation = None if self.number is None else list(_ACTIVATIONS.values())[self.number]

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], prefix: str) -> Vocabulary | None:
        """The vocabulary in a state dict, saved; None if there is none."""
        names = ("weight", "bias", "head_weight", "head_bias", "head_activation")
        weight, bias, *head = (state.get(prefix + name) for name in names)
        if weight is None or bias is None:
            return None
        first, second, third = head
        whole = None if first is None or second is None or third is None else (first, second, int(third))
        return cls(weight, bias, head=whole, saved=True)

    def saved(self) -> Vocabulary:
        """A copy that is part of the state dict."""
        first, second, number = self.head_weight, self.head_bias, self.number
        head = None if first is None or second is None or number is None else (first, second, number)
        return Vocabulary(self.weight, self.bias, head=head, saved=True)

    def forward(self, features: Tensor) -> Tensor:
        """(B, K, h, w) -> (B, N): mean of the probabilities at all positions, which keeps small objects visible."""
        places = features.flatten(2).transpose(1, 2).float()
        if self.head_weight is not None and self.activation is not None:
            places = self.activation(F.linear(places, self.head_weight, self.head_bias))
        return (places @ self.weight.T + self.bias).softmax(dim=2).mean(dim=1)


def vocabulary_of(
    classifier: Mapping[str, Tensor], channels: int, encoder: nn.Module | None = None
) -> Vocabulary | None:
    """The vocabulary of the tensors of a weights file that are not in the encoder.

    None unless they are a linear layer on ``channels``, or on those of an EfficientNet's head.
    """
    beside = {name: tensor for name, tensor in classifier.items() if not name.endswith("num_batches_tracked")}
    head = _head(beside, encoder)
    if head is not None:
        channels = len(head[1])
        beside = {name: tensor for name, tensor in beside.items() if name not in _HEAD}
    tensors = {name.rpartition(".")[2]: tensor for name, tensor in beside.items()}
    if set(tensors) != {"weight", "bias"} or len(beside) != 2:
        return None
    weight, bias = tensors["weight"], tensors["bias"]
    fits = weight.ndim == 2 and weight.shape[1] == channels and bias.shape == weight.shape[:1]
    return Vocabulary(weight, bias, head=head) if fits else None


def _head(beside: Mapping[str, Tensor], encoder: nn.Module | None) -> tuple[Tensor, Tensor, int] | None:
    """An EfficientNet's convolution before its classifier, with its batch normalisation: (M, K), (M,), activation.

    Its last activation and epsilon are those of the first layer. None for other networks.
    """
    norm: Any = getattr(getattr(encoder, "model", None), "bn1", None)
    name = type(getattr(norm, "act", None)).__name__
    if name not in _ACTIVATIONS or not set(_HEAD) <= set(beside):
        return None
    weight, gain, shift, mean, variance = (beside[each].float() for each in _HEAD)
    factor = gain / (variance + norm.eps).sqrt()
    return factor.unsqueeze(1) * weight.flatten(1), shift - factor * mean, list(_ACTIVATIONS).index(name)
