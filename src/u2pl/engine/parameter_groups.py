"""Learning rate and weight decay of each parameter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from u2pl.errors import InputError
from u2pl.networks.transformers import layers_of, undecayed


def parameter_groups(
    network: Any, *, lr: float, head_lr_factor: float, weight_decay: float, layer_decay: float | None = None
) -> list[dict[str, Any]]:
    """Groups for an optimiser. Each parameter of the network that trains is in one of them.

    The encoder learns at ``lr``, the heads at ``lr * head_lr_factor``. With ``layer_decay``, the encoder's layer k
    below its last one learns at ``lr * layer_decay ** k`` (Bao et al. 2022, arXiv 2106.08254). Vectors, such as norms
    and biases, position embeddings and tokens then have no weight decay, as is usual for transformers.

    Args:
        network: has an ``encoder``, ``encoder_parameters()`` and ``head_parameters()``.

    Raises:
        InputError: for ``layer_decay`` with an encoder whose layers timm does not order.
    """
    head_lr = lr * head_lr_factor
    if layer_decay is None:
        return [
            {"params": _trained(network.encoder_parameters()), "lr": lr, "weight_decay": weight_decay},
            {"params": _trained(network.head_parameters()), "lr": head_lr, "weight_decay": weight_decay},
        ]
    layers = layers_of(network.encoder)
    if layers is None:
        raise InputError(
            "train.layer_decay: works only with the encoders of DPT and mit_b0 to mit_b5; set "
            "train.layer_decay=null, or choose such a network.encoder"
        )
    exempt, depth = undecayed(network.encoder), max(layers.values())
    encoder = sorted(network.encoder.named_parameters(), key=lambda item: -layers[item[0]])  # the last layer first
    rated = [
        (value, lr * layer_decay ** (depth - layers[name]), name in exempt)
        for name, value in encoder
        if value.requires_grad
    ]
    rated += [(value, head_lr, False) for value in _trained(network.head_parameters())]
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for parameter, rate, is_exempt in rated:
        decay = 0.0 if is_exempt or parameter.dim() <= 1 else weight_decay
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def _trained(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]
