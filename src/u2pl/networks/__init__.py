"""Networks: images (B, 3, H, W) in [0, 1] -> :class:`u2pl.structures.SegmentationOutput`."""

from u2pl.networks.adapter import SmpNetwork, smp_network
from u2pl.networks.deeplabv3plus import DeepLabV3Plus, deeplabv3plus

__all__ = ["DeepLabV3Plus", "SmpNetwork", "deeplabv3plus", "smp_network"]
