"""Where on an image the places of an encoder's maps lie."""

from __future__ import annotations

from torch import nn


def on_corners(encoder: nn.Module) -> bool:
    """Whether the centre of a map's place is the first pixel of its cell, as convolutions of odd size leave it.

    Place i of a map of stride s is then centred at pixel i * s, and n + 1 places cover an image of n * s + 1 pixels
    from its first pixel to its last. The places of patches are centred in the middle of their cells, and n of them
    cover n * s pixels. The first convolution that has a stride decides.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.stride[0] > 1:
            half = module.kernel_size[0] // 2
            return module.padding == (half, half)
    return False
