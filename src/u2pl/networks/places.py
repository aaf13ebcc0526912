"""Where the positions of an encoder's feature maps lie on the image."""

from __future__ import annotations

from torch import nn


def on_corners(encoder: nn.Module) -> bool:
    """Whether each position of a map is centred on the first pixel of its cell, as after convolutions of odd size.

    Position i of a map of stride s is then centred at pixel i * s, and n + 1 positions cover an image of n * s + 1
    pixels from its first pixel to its last. Positions of patches are centred in the middle of their cells, and n of
    them cover n * s pixels. The first convolution with a stride decides.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.stride[0] > 1:
            half = module.kernel_size[0] // 2
            return module.padding == (half, half)
    return False
