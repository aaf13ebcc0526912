"""Small tensors that hypothesis draws."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor

from u2pl.structures import IGNORE_INDEX

#: The same examples in every run, and no limit on the time of one, which depends on the machine.
FIXED = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@st.composite
def tensors(draw: st.DrawFn, shape: tuple[int, ...], elements: st.SearchStrategy[Any]) -> Tensor:
    number = int(torch.tensor(shape).prod())
    return torch.tensor(draw(st.lists(elements, min_size=number, max_size=number))).view(shape)


def labels(num_classes: int) -> st.SearchStrategy[int]:
    """Class indices and ignored pixels."""
    return st.sampled_from([*range(num_classes), IGNORE_INDEX])


#: Few different values, so that many are equal, and any others.
SHARES = st.one_of(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), st.floats(0, 1, width=32))


def rank_of(probability: list[float], c: int) -> int:
    """O(c): how many classes are likelier, or as likely with a lower index."""
    rank = 0
    for other, p in enumerate(probability):
        if p > probability[c] or (p == probability[c] and other < c):
            rank += 1
    return rank
