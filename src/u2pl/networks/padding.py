"""Pad images to sides that an encoder accepts, and crop its output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pad(image: Tensor, *, multiple: int, minimum: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples of ``multiple`` and at least ``minimum``."""
    bottom, right = (-max(side, minimum) % multiple + max(minimum - side, 0) for side in image.shape[-2:])
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def unpad(x: Tensor, size: Sequence[int], padded: Sequence[int]) -> Tensor:
    """The part of (B, ., h, w) that belongs to images of a ``size``; ``padded`` at the bottom and on the right."""
    places = zip(x.shape[-2:], size, padded, strict=True)
    rows, columns = (-(-own * side // whole) for side, own, whole in places)
    return x[..., :rows, :columns]


def pad_traced(image: Tensor, *, multiple: int, minimum: int) -> Tensor:
    """As :func:`pad`, without a branch on the size: an exported graph then fits images of every size."""
    height, width = image.shape[-2:]
    tall, wide = ((torch.sym_max(side, minimum) + multiple - 1) // multiple * multiple for side in (height, width))
    return F.pad(image, (0, wide - width, 0, tall - height), mode="replicate")  # type: ignore[arg-type]
