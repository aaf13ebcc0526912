"""Random draws from sets of unknown size, without waiting for the device to report the size."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified(count: Tensor, number: int) -> Tensor:
    """(C, N) int64: N indices into each set of ``count[c]`` elements.

    A set of N or more elements is rotated by a random offset and cut into N slices, equal up to rounding. Each slice
    gives one index, so the indices are distinct and every element is equally likely. A smaller set is repeated in
    order, so its first ``count[c]`` indices are distinct. An empty set gives zeros.
    """
    steps = torch.arange(number, device=count.device)
    size = count.unsqueeze(1)
    random = torch.rand(len(count), number + 1, device=count.device)
    first, after = steps * size // number, (steps + 1) * size // number
    inside = first + (random[:, 1:] * (after - first)).long()
    turned = inside + (random[:, :1] * size).long()
    return torch.where(size > number, turned, steps) % size.clamp(min=1)


def draw_members(mask: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Draw N members of each row's set.

    Args:
        mask: (C, P) bool, true where one of P pixels belongs to one of C sets.
        number: N.

    Returns:
        (C, N) int64 pixel indices in [0, P), drawn by :func:`stratified` (zeros for an empty set), and (C,) int64, the
        size of each set.
    """
    running = mask.cumsum(dim=1, dtype=torch.int32)
    count = running[:, -1].long()
    wanted = stratified(count, number).int() + 1  # the k-th member is where the running count first reaches k
    index = torch.searchsorted(running, wanted)
    return index.clamp(max=mask.shape[1] - 1), count
