"""First-in-first-out queues of negative keys, one per class (U2PL, section 3.2), in one tensor that is never copied."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from u2pl.pixels.sampling import stratified
from u2pl.structures import IGNORE_INDEX


class MemoryBank(nn.Module):
    """One ring of embeddings per class. The rings are saved with the model, so a resumed run continues unchanged.

    Args:
        capacity: number of keys that each class holds, one number per class (paper: 50 000 for the background of VOC,
            30 000 for every other class).
        dim: D, length of a key.
        keep_truth: also hold the true class of each key, so that a diagnosis can measure how pure the queues are.
    """

    keys: Tensor
    start: Tensor
    capacity: Tensor
    pushed: Tensor
    truth: Tensor | None

    def __init__(self, capacity: Sequence[int], dim: int, *, keep_truth: bool = False) -> None:
        super().__init__()
        sizes = torch.tensor(capacity, dtype=torch.long)
        self.smallest = min(capacity)
        # Dropped keys go to an extra row after the last ring: a masked write needs no count from the device.
        self.register_buffer("keys", torch.zeros(int(sizes.sum()) + 1, dim))
        self.register_buffer("start", sizes.cumsum(0) - sizes, persistent=False)
        self.register_buffer("capacity", sizes, persistent=False)
        self.register_buffer("pushed", torch.zeros_like(sizes))  # keys ever pushed to each ring
        truth = torch.full((len(self.keys),), IGNORE_INDEX, dtype=torch.uint8) if keep_truth else None
        self.register_buffer("truth", truth)  # true class of the key in the same row

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.capacity)

    @property
    def fill(self) -> Tensor:
        """(C,) int64: keys held by each class."""
        return torch.minimum(self.pushed, self.capacity)

    @torch.no_grad()
    def push(self, keys: Tensor, keep: Tensor, truth: Tensor | None = None) -> None:
        """Append the keys of (C, K, D) ``keys`` for which (C, K) bool ``keep`` is true. They replace the oldest keys.

        A bank with ``keep_truth`` also stores the (C, K) ``truth`` of the keys, IGNORE_INDEX where unknown. No draw
        uses it.

        Raises:
            ValueError: K exceeds the capacity of a ring, so one push would overwrite itself.
        """
        if keys.shape[1] > self.smallest:
            raise ValueError(f"{keys.shape[1]} keys do not fit a queue of {self.smallest} in one push")
        place = self.pushed.unsqueeze(1) + keep.cumsum(dim=1) - 1
        slot = place % self.capacity.unsqueeze(1) + self.start.unsqueeze(1)
        slot = torch.where(keep, slot, len(self.keys) - 1)
        self.keys.index_copy_(0, slot.flatten(), keys.flatten(0, 1).to(self.keys.dtype))
        if self.truth is not None:
            truth = torch.full_like(slot, IGNORE_INDEX) if truth is None else truth
            self.truth.index_copy_(0, slot.flatten(), truth.flatten().to(self.truth.dtype))
        self.pushed += keep.sum(dim=1)

    def draw(self, number: int) -> Tensor:
        """(C, N, D): N keys drawn from each ring, without repetition if it holds at least N.

        Keys from an empty ring are meaningless: leave out the classes where ``fill`` is zero.
        """
        index = stratified(self.fill, number)
        return self.keys[(index + self.start.unsqueeze(1)).flatten()].unflatten(0, index.shape)
