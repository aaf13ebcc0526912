"""Dropped channels between encoder and decoder: the perturbations of UniMatch and of UniMatch V2."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def append_dropped(features: Any, last: int, *, probability: float = 0.5) -> Any:
    """Append a copy of the ``last`` images to a batch of encoder features, with half of their channels dropped.

    The perturbation of UniMatch (Yang et al. 2023, arXiv 2208.09910).

    Args:
        features: tensors (B, C, h, w), (B, T, C) for a transformer's tokens, or lists and tuples of them.
        last: number of images at the end of the batch; 0 returns the features unchanged.
        probability: of setting a channel to zero. The others are divided by 1 - ``probability``.

    Returns:
        The same structure with batches of B + last. A transformer's tokens are repeated unchanged.
    """
    if last == 0 or features is None:
        return features
    if isinstance(features, Tensor):
        again = features[-last:]
        return torch.cat((features, F.dropout2d(again, probability) if features.dim() == 4 else again))
    parts = [append_dropped(part, last, probability=probability) for part in features]
    return type(features)(*parts) if hasattr(features, "_fields") else type(features)(parts)


def complementary_dropout(features: Any, pairs: int) -> Any:
    """Let the two views of an image have complementary halves of the channels, each twice as strong.

    The perturbation of UniMatch V2 (Yang et al. 2025, arXiv 2410.10777). As in its released code, half of the images,
    rounded down, stay unchanged, and features of the same width drop the same channels.

    Args:
        features: tensors (B, C, h, w), or lists and tuples of them. A transformer's tokens (B, T, C) stay unchanged.
        pairs: number of images with two views, at the end of the batch: all first views, then all second ones. 0
            returns the features unchanged.
    """
    if pairs == 0:
        return features
    unchanged = torch.randperm(pairs, device=_device(features)) < pairs // 2
    return _masked(features, unchanged.view(-1, 1), {})


def _device(features: Any) -> torch.device | None:
    """The device of the first tensor."""
    if isinstance(features, Tensor):
        return features.device
    return next((_device(part) for part in features if part is not None), None)


def _masked(features: Any, unchanged: Tensor, masks: dict[int, Tensor]) -> Any:
    """``unchanged``: (pairs, 1) bool. ``masks``: factors (2 pairs, C) by C, as far as they are drawn."""
    if features is None or (isinstance(features, Tensor) and features.dim() != 4):
        return features
    if isinstance(features, Tensor):
        pairs, width = len(unchanged), features.shape[1]
        if width not in masks:
            first = 2.0 * torch.randint(2, (pairs, width), device=features.device)
            masks[width] = torch.cat((first, 2 - first)).masked_fill(unchanged.repeat(2, 1), 1.0)
        others = features.new_ones(len(features) - 2 * pairs, width)
        mask = torch.cat((others, masks[width].to(features.dtype)))
        return features * mask[:, :, None, None]
    parts = [_masked(part, unchanged, masks) for part in features]
    return type(features)(*parts) if hasattr(features, "_fields") else type(features)(parts)
