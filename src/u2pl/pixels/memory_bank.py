"""Category-wise FIFO queues of negative keys (U2PL, section 3.2), all in one tensor that is never copied."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from u2pl.pixels.sampling import stratified
from u2pl.structures import IGNORE_INDEX


class MemoryBank(nn.Module):
    """One ring of embeddings per class. Its buffers are saved with the model, so a resumed run goes on unchanged.

    Args:
        capacity: number of keys each class holds, one number per class (paper: 50 000 for the background of VOC,
            30 000 for every other class).
        dim: D, length of a key.
        keep_truth: also hold the true class of each key, by which a diagnosis tells how pure the queues are.
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
        # The row past the last ring takes what is not to be kept: a masked write needs no count from the device.
        self.register_buffer("keys", torch.zeros(int(sizes.sum()) + 1, dim))
        self.register_buffer("start", sizes.cumsum(0) - sizes, persistent=False)
        self.register_buffer("capacity", sizes, persistent=False)
        self.register_buffer("pushed", torch.zeros_like(sizes))  # keys ever pushed to each ring
        truth = torch.full((len(self.keys),), IGNORE_INDEX, dtype=torch.uint8) if keep_truth else None
        self.register_buffer("truth", truth)  # of the key in the same row

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.capacity)

    @property
    def fill(self) -> Tensor:
        """(C,) int64: keys held by each class."""
        return torch.minimum(self.pushed, self.capacity)

    @torch.no_grad()
    def push(self, keys: Tensor, keep: Tensor, truth: Tensor | None = None) -> None:
        """Append those of the (C, K, D) ``keys`` that (C, K) bool ``keep`` names; the oldest keys make room.

        A bank that keeps it notes the (C, K) ``truth`` of the keys, IGNORE_INDEX where it is unknown; no draw sees it.

        Raises:
            ValueError: K exceeds the capacity of a ring: one push would overwrite itself.
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
        """(C, N, D): N keys drawn from each ring, without repetition where it holds as many.

        The draw from an empty ring is meaningless: leave the class out where ``fill`` is zero.
        """
        index = stratified(self.fill, number)
        return self.keys[(index + self.start.unsqueeze(1)).flatten()].unflatten(0, index.shape)
