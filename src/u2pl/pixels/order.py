"""Order statistics over the values of all processes, without bringing the values together."""

from __future__ import annotations

import torch
from torch import Tensor

from u2pl.structures import Reduce

_DIGIT = 8  # bits that a round decides


def float_keys(value: Tensor) -> Tensor:
    """Integers in [0, 2**32) in the order of non-negative floats: their bits. int64, in the shape of ``value``."""
    return value.float().abs().view(torch.int32).long()  # -0.0 has the sign bit


def float_of_keys(key: Tensor) -> Tensor:
    """The float32 values of :func:`float_keys`; bits above the 32nd are left out."""
    return (key & 0xFFFFFFFF).int().view(torch.float32)


def at_places(ordered: Tensor, group: Tensor, place: Tensor, total: Reduce) -> Tensor:
    """The keys at places of the sorted union of all processes' keys, by the most significant digit first (MSD radix).

    Each round counts how many keys of all processes are below each of 256 bounds, and keeps the interval with the
    wanted place. Four rounds find it exactly. They exchange 256 counts for each place, however many keys there are.

    Args:
        ordered: (N,) int64, sorted keys of this process: a group above the 32nd bit, and :func:`float_keys` below it.
        group: (G,) int64.
        place: (G, K) int64, places in the sorted keys of each group, from 0.
        total: sums a tensor over all processes.

    Returns:
        (G, K) int64 keys; without meaning for a group with fewer keys.
    """
    first = (group << 32).unsqueeze(1)
    before = total(torch.searchsorted(ordered, first)).unsqueeze(-1)
    lower = first.expand_as(place)
    digits = torch.arange(1 << _DIGIT, device=ordered.device)
    for shift in range(32 - _DIGIT, -1, -_DIGIT):
        below = total(torch.searchsorted(ordered, lower.unsqueeze(-1) + (digits << shift))) - before
        digit = (below <= place.unsqueeze(-1)).sum(dim=-1) - 1
        lower = lower + (digit.clamp(min=0) << shift)
    return lower
