"""Padding for a graph that fits all sizes, against the padding of training."""

from __future__ import annotations

import pytest
import torch

from u2pl.networks.padding import pad, pad_traced


@pytest.mark.parametrize(("multiple", "minimum"), [(32, 1), (32, 64), (28, 1), (8, 12), (1, 1)])
def test_traced_padding_is_that_of_training(multiple: int, minimum: int) -> None:
    for height, width in ((1, 1), (31, 33), (64, 96), (70, 101), (12, 200)):
        image = torch.rand(2, 3, height, width)
        expected = pad(image, multiple=multiple, minimum=minimum)
        assert torch.equal(pad_traced(image, multiple=multiple, minimum=minimum), expected)
