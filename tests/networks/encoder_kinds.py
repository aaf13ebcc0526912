"""A network on each kind of encoder, and what that sees of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from u2pl.networks import deeplabv3plus, smp_network

STRIDE = {"deeplabv3plus": 16, "fpn": 32, "segformer": 32, "dpt": 16}

_BUILDERS: dict[str, Callable[..., Any]] = {
    "deeplabv3plus": lambda **o: deeplabv3plus(encoder="resnet18", channels=8, low_level_channels=4, **o),
    "fpn": lambda **o: smp_network(architecture="FPN", encoder="mobilenet_v2", **o),
    "segformer": lambda **o: smp_network(architecture="Segformer", encoder="mit_b0", **o),
    "dpt": lambda **o: smp_network(
        architecture="DPT", encoder="tu-vit_tiny_patch16_224", embed_dim=24, num_heads=2, **o
    ),
}


def build(name: str, **options: Any) -> Any:
    """A network by a key of ``STRIDE``, of five classes, with the same weights each time."""
    torch.manual_seed(0)
    return _BUILDERS[name](**{"num_classes": 5, "embedding_dim": 6, **options})


def last_features(network: Any, image: Tensor) -> Tensor:
    """(B, K, h, w)."""
    encoded = network.encoder(network.normalize(image))
    if hasattr(encoded, "high"):
        return encoded.high
    return (encoded[0] if isinstance(encoded, tuple) else encoded)[-1]
