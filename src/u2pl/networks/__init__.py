"""Networks: images (B, 3, H, W) in [0, 1] -> :class:`u2pl.structures.SegmentationOutput`."""

from collections.abc import Callable

from torch import nn

from u2pl.networks.adapter import SmpNetwork, smp_network
from u2pl.networks.deeplabv3plus import DeepLabV3Plus, deeplabv3plus

#: Builders by their name in a configuration.
NETWORKS: dict[str, Callable[..., nn.Module]] = {"deeplabv3plus": deeplabv3plus, "smp": smp_network}

__all__ = ["NETWORKS", "DeepLabV3Plus", "SmpNetwork", "deeplabv3plus", "smp_network"]
