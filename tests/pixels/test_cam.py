import math

import numpy as np
import pytest
import torch
from torch import Tensor

from u2pl.pixels.cam import (
    PixelAdaptiveRefinement,
    multi_label_loss,
    normalized_maps,
    seeds,
    tag_scores,
    with_background,
)

B, K, H, W = 2, 3, 6, 7


@pytest.mark.parametrize("seed", range(3))
def test_padding_does_not_count_in_the_scores_of_an_image(seed: int) -> None:
    torch.manual_seed(seed)
    activation = torch.randn(B, K, 3, 4)
    valid = torch.rand(B, 12, 16) < 0.5  # each place is a block of 4 x 4 pixels
    valid[1, :, 8:] = False
    scores = tag_scores(activation, valid)
    for b in range(B):
        for k in range(K):
            total = weight = 0.0
            for y in range(12):
                for x in range(16):
                    if valid[b, y, x]:
                        total += activation[b, k, y // 4, x // 4].item()
                        weight += 1
            assert scores[b, k].item() == pytest.approx(total / weight, abs=1e-5)
    assert tag_scores(activation, torch.zeros_like(valid)).tolist() == torch.zeros(B, K).tolist()
    torch.testing.assert_close(tag_scores(activation, torch.ones_like(valid)), tag_scores(activation))


@pytest.mark.parametrize("tagged", [(True, True), (False, True), (False, False)])
def test_multi_label_loss(tagged: tuple[bool, bool]) -> None:
    torch.manual_seed(0)
    scores, tags = torch.randn(B, K, requires_grad=True), torch.rand(B, K) < 0.5
    values = []
    for b in range(B):
        terms = []
        for k in range(K):
            p = 1 / (1 + math.exp(-scores[b, k].item()))
            terms.append(-math.log(p if tags[b, k] else 1 - p))
        if tagged[b]:
            values.append(sum(terms) / K)
    loss = multi_label_loss(scores, tags, torch.tensor(tagged))
    assert loss.item() == pytest.approx(sum(values) / max(1, len(values)), abs=1e-6)
    loss.backward()
    assert scores.grad is not None
    assert [bool(row.any()) for row in scores.grad] == list(tagged)


@pytest.mark.parametrize("seed", range(4))
def test_maps_are_divided_by_their_largest_value(seed: int) -> None:
    torch.manual_seed(seed)
    activation, tags = torch.randn(B, K, H, W), torch.rand(B, K) < 0.6
    activation[0, 0] = -activation[0, 0].abs()
    tags[0, 0] = True  # named, but seen nowhere
    maps = normalized_maps(activation, tags)
    for b in range(B):
        for k in range(K):
            rows = activation[b, k].tolist()
            largest = max(max(row) for row in rows)
            for y in range(H):
                for x in range(W):
                    seen = tags[b, k] and rows[y][x] > 0
                    assert maps[b, k, y, x].item() == pytest.approx(rows[y][x] / largest if seen else 0.0, abs=1e-5)
    assert not maps[0, 0].any()


@pytest.mark.parametrize("seed", range(4))
def test_seeds_are_sure_pixels_of_either_side(seed: int) -> None:
    torch.manual_seed(seed)
    maps, valid = torch.rand(B, K, H, W) ** 2, torch.rand(B, H, W) < 0.8
    maps[0, :, 0, 0], maps[0, :, 0, 1] = 0.3, 0.6  # on the thresholds, and equal: the first class
    maps = (10 * maps).round() / 10
    label = seeds(maps, high=0.6, low=0.3, valid=valid)
    assert label.dtype == torch.int64
    for b in range(B):
        for y in range(H):
            for x in range(W):
                values = [round(value, 4) for value in maps[b, :, y, x].tolist()]
                largest = max(values)
                expected = 255
                if valid[b, y, x] and largest >= 0.6:
                    expected = 1 + values.index(largest)
                elif valid[b, y, x] and largest <= 0.3:
                    expected = 0
                assert label[b, y, x] == expected
    everywhere = seeds(maps, high=0.6, low=0.3)
    assert torch.equal(everywhere[valid], label[valid])
    scores = with_background(maps, 0.45)
    assert scores.shape == (B, 1 + K, H, W)
    assert torch.equal(scores.argmax(dim=1) == 0, maps.amax(dim=1) <= 0.45)


def loop_refinement(image: Tensor, maps: Tensor, iterations: int, dilations: tuple[int, ...]) -> np.ndarray:
    """PAMR of one image, pixel by pixel."""
    colours, values = image.double().numpy(), maps.double().numpy()
    height, width = colours.shape[1:]

    def around(y: int, x: int) -> list[tuple[int, int]]:
        places = []
        for d in dilations:
            for dy in (-d, 0, d):
                for dx in (-d, 0, d):
                    if (dy, dx) != (0, 0):
                        places.append((min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)))
        return places

    weights = {}
    for y in range(height):
        for x in range(width):
            places = around(y, x)
            sigma = np.std([colours[:, y, x], *(colours[:, v, u] for v, u in places)], axis=0)
            scores = [-np.mean(np.abs(colours[:, v, u] - colours[:, y, x]) / (0.1 * sigma + 1e-8)) for v, u in places]
            powers = np.exp(np.array(scores) - max(scores))
            weights[y, x] = powers / powers.sum()
    for _ in range(iterations):
        new = np.zeros_like(values)
        for (y, x), weight in weights.items():
            for share, (v, u) in zip(weight, around(y, x), strict=True):
                new[:, y, x] += share * values[:, v, u]
        values = new
    return values


@pytest.mark.parametrize(("iterations", "dilations"), [(1, (1,)), (3, (1, 2)), (2, (2, 9)), (0, (1,))])
def test_refinement_pixel_by_pixel(iterations: int, dilations: tuple[int, ...]) -> None:
    torch.manual_seed(iterations)
    image, maps = torch.rand(B, 3, H, W), torch.rand(B, K, H, W)
    refined = PixelAdaptiveRefinement(iterations, dilations)(image, maps)
    assert refined.dtype == torch.float32
    for b in range(B):
        expected = loop_refinement(image[b], maps[b], iterations, dilations)
        np.testing.assert_allclose(refined[b].numpy(), expected, atol=1e-5)


def test_without_neighbours_nothing_moves() -> None:
    maps = torch.rand(1, 1, H, W)
    assert torch.equal(PixelAdaptiveRefinement(3, ())(torch.rand(1, 3, H, W), maps), maps)


def test_an_image_of_one_colour_averages() -> None:
    maps = torch.zeros(1, 1, 9, 9)
    maps[0, 0, 4, 4] = 8.0
    refined = PixelAdaptiveRefinement(1, (1,))(torch.full((1, 3, 9, 9), 0.5), maps)
    assert refined[0, 0, 3:6, 3:6].tolist() == pytest.approx(torch.tensor([[1.0, 1, 1], [1, 0, 1], [1, 1, 1]]))
    assert refined.sum().item() == pytest.approx(8.0, abs=1e-4)


def test_maps_stop_at_edges_of_colour() -> None:
    torch.manual_seed(0)
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8:] = 1.0
    maps = torch.zeros(1, 1, 16, 16)
    maps[..., :6] = 1.0  # too small for the left half
    refined = PixelAdaptiveRefinement(20, (1, 2))(image + 0.01 * torch.rand(1, 3, 16, 16), maps)
    assert refined[..., 6:8].min() > 0.5
    assert refined[..., 8:].max() < 0.2
    assert refined.max() <= 1 + 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_out_of_it(dtype: torch.dtype) -> None:
    image, maps = torch.rand(1, 3, H, W), torch.rand(1, K, H, W)
    expected = PixelAdaptiveRefinement(2, (1,))(image.to(dtype).float(), maps.to(dtype).float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(PixelAdaptiveRefinement(2, (1,))(image.to(dtype), maps.to(dtype)), expected)
        assert tag_scores(torch.randn(1, K, 2, 2).to(dtype)).dtype == torch.float32
