"""Hidden patches against a loop over patches and pixels."""

from __future__ import annotations

import math

import pytest
import torch

from u2pl.pixels.masking import patch_side, visible_patches

CPU = torch.device("cpu")


@pytest.mark.parametrize(("height", "width", "side"), [(8, 12, 4), (9, 13, 4), (5, 3, 7), (6, 6, 1), (1, 1, 1)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("ratio", [0.0, 0.4, 1.0])
def test_a_pixel_is_visible_as_its_patch_is(height: int, width: int, side: int, batch: int, ratio: float) -> None:
    torch.manual_seed(7)
    visible = visible_patches(batch, height, width, side=side, ratio=ratio, device=CPU)
    torch.manual_seed(7)
    rows, columns = math.ceil(height / side), math.ceil(width / side)
    drawn = torch.rand(batch * rows * columns).tolist()
    assert visible.shape == (batch, height, width)
    assert visible.dtype == torch.bool
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                patch = (b * rows + y // side) * columns + x // side
                assert visible[b, y, x].item() == (drawn[patch] >= ratio)


def test_the_ratio_is_the_share_of_hidden_patches() -> None:
    torch.manual_seed(0)
    hidden = ~visible_patches(64, 64, 64, side=4, ratio=0.7, device=CPU)
    assert hidden.float().mean().item() == pytest.approx(0.7, abs=0.01)
    shares = hidden.float().mean(dim=(1, 2))
    assert shares.std() > 0.01  # each image has patches of its own


@pytest.mark.parametrize(
    ("size", "share", "side"),
    [((512, 512), 0.0625, 32), ((96, 128), 0.125, 12), ((128, 96), 0.125, 12), ((20, 90), 0.0, 1), ((50, 50), 1.0, 50)],
)
def test_the_side_of_a_patch_follows_the_shorter_side(size: tuple[int, int], share: float, side: int) -> None:
    assert patch_side(*size, share) == side
