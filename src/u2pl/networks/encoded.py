"""What an encoder makes of images, as an object that a network accepts in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Encoded:
    """The encoder's features of a batch of images.

    It is no dataclass on purpose: Lightning Fabric would look into one and change the precision of its tensors.

    Args:
        features: the encoder's output: tensors (B, ...), or lists and tuples of them; None where there is nothing.
        size: height and width of the images.
        padded: height and width that the encoder got.
    """

    def __init__(self, features: Any, *, size: Sequence[int], padded: Sequence[int]) -> None:
        self.features = features
        self.size, self.padded = tuple(size), tuple(padded)

    @classmethod
    def cat(cls, parts: Sequence[Encoded]) -> Encoded:
        """Join the features of several batches of images of one size, in new tensors unless there is only one batch."""
        if len(parts) == 1:
            return parts[0]
        return cls(_cat([part.features for part in parts]), size=parts[0].size, padded=parts[0].padded)


def _cat(parts: list[Any]) -> Any:
    first = parts[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(parts)
    joined = [_cat(list(each)) for each in zip(*parts, strict=True)]
    return type(first)(*joined) if hasattr(first, "_fields") else type(first)(joined)
