"""UniMatch's feature perturbation (Yang et al. 2023, arXiv 2208.09910): dropped channels before the decoder."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def append_dropped(features: Any, last: int, *, probability: float = 0.5) -> Any:
    """Append a copy of the ``last`` images to a batch of encoder features, with half of their channels dropped.

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
