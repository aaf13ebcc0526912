"""Square patches that hide parts of images (MIC, Hoyer et al. 2023, arXiv 2212.01322, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor


def visible_patches(batch: int, height: int, width: int, *, side: int, ratio: float, device: torch.device) -> Tensor:
    """(B, H, W) bool, False inside hidden patches.

    Patches tile the image from its top left corner. Those at the right and at the bottom are cut if a side of the image
    is no multiple of ``side``. Each patch is hidden with the probability ``ratio``, independently of all others. Uses
    torch's global generator on ``device``, without waiting for the device.

    Args:
        batch, height, width: B, H and W.
        side: of a patch, in pixels.
    """
    rows, columns = -(-height // side), -(-width // side)
    visible = torch.rand(batch, rows, 1, columns, 1, device=device) >= ratio
    return visible.expand(-1, -1, side, -1, side).reshape(batch, rows * side, columns * side)[:, :height, :width]


def patch_side(height: int, width: int, share: float) -> int:
    """The side of a patch in pixels, at least 1: a share of the shorter side of the image."""
    return max(1, round(share * min(height, width)))
