"""Polygons of masks and masks of polygons, compared with loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from there_and_back import masks
from u2pl.errors import InputError
from u2pl.formats.areas import polygon
from u2pl.formats.shapes import Window, regions, rings_of


def inside_by_loops(rings: list[list[tuple[float, float]]], height: int, width: int) -> np.ndarray:
    """The even-odd rule at the centre of each pixel, by a ray to the right. 0.5 where a border meets the centre."""
    found = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            x, y, crossings, on_border = column + 0.5, row + 0.5, 0, False
            for ring in rings:
                for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
                    if (y0 <= y) != (y1 <= y):
                        at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                        on_border |= abs(at - x) < 1e-9
                        crossings += at > x
            found[row, column] = 0.5 if on_border else crossings % 2
    return found


def parts_by_loops(member: np.ndarray) -> int:
    """Connected parts of pixels that share a side."""
    left, count = {tuple(each) for each in np.argwhere(member).tolist()}, 0
    while left:
        count, waiting = count + 1, [left.pop()]
        while waiting:
            row, column = waiting.pop()
            for near in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if near in left:
                    left.remove(near)
                    waiting.append(near)
    return count


# Many are outside of the image.
points = st.tuples(
    st.integers(-9, 33).map(lambda value: value / 3 + 0.1), st.integers(-9, 33).map(lambda v: v / 3 + 0.1)
)


@settings(max_examples=150, deadline=None)
@given(rings=st.lists(st.lists(points, min_size=3, max_size=7), min_size=1, max_size=3))
def test_pixels_of_polygons_are_those_of_a_loop(rings: list[list[tuple[float, float]]]) -> None:
    found = np.zeros((7, 9), dtype=np.uint8)
    rings_of([np.array(ring) for ring in rings], (7, 9)).paint(found, 1)
    wanted = inside_by_loops(rings, 7, 9)
    np.testing.assert_array_equal(found[wanted != 0.5], wanted[wanted != 0.5])


@settings(max_examples=150, deadline=None)
@given(mask=masks())
def test_regions_are_the_parts_of_a_mask(mask: np.ndarray) -> None:
    member = mask == 1
    found = regions(member)
    total = sum((region.window.within(member.shape).astype(int) for region in found), np.zeros(member.shape, int))
    np.testing.assert_array_equal(total, member)
    for region in found:
        assert parts_by_loops(region.window.pixels) == 1
        assert region.rings[0].min() >= 0
        assert (region.rings[0].max(axis=0) <= member.shape[::-1]).all()
    assert len(found) == parts_by_loops(member)


@settings(max_examples=150, deadline=None)
@given(mask=masks())
def test_one_ring_has_the_pixels_of_its_region_with_all_holes(mask: np.ndarray) -> None:
    for region in regions(mask == 1):
        ring = region.one_ring()
        found = inside_by_loops([[(x, y) for x, y in ring.round(3)]], *mask.shape)
        np.testing.assert_array_equal(found, region.window.within(mask.shape))


def test_straight_borders_need_few_points() -> None:
    member = np.zeros((100, 200), dtype=bool)
    member[10:90, 20:180] = True
    member[40:50, 60:70] = False
    (region,) = regions(member)
    assert len(region.rings) == 2
    assert [len(ring) for ring in region.simplified(0.35)] == [8, 8]


def test_a_tolerance_that_would_cross_lines_is_not_taken() -> None:
    rows, columns = np.mgrid[:60, :60]
    distance = np.hypot(rows - 30, columns - 30)
    (region,) = regions((distance > 24) & (distance < 26))  # a ring of two pixels
    fine, coarse = region.simplified(0.35), region.simplified(4.0)
    assert [len(ring) for ring in coarse] == [len(ring) for ring in fine]
    (disc,) = regions(distance < 26)
    assert len(disc.simplified(4.0)[0]) < len(disc.simplified(0.35)[0]) / 2


def test_windows_reach_beyond_the_image() -> None:
    pixels = np.ones((4, 5), dtype=bool)
    for top, left in ((-2, -3), (3, 4), (-9, 0), (0, 9), (1, 1)):
        mask = np.zeros((6, 7), dtype=np.uint8)
        Window(top, left, pixels).paint(mask, 1)
        wanted = [[top <= row < top + 4 and left <= column < left + 5 for column in range(7)] for row in range(6)]
        np.testing.assert_array_equal(mask, wanted)


def test_a_polygon_is_cut_off_at_the_border_of_the_image() -> None:
    mask = np.zeros((4, 6), dtype=np.uint8)
    polygon("a", [[-5, -5, 2, -5, 2, 99, -5, 99]], where="f").paint(mask, 1)
    np.testing.assert_array_equal(mask, [[1, 1, 0, 0, 0, 0]] * 4)


def test_a_polygon_that_crosses_itself_is_filled_by_the_even_odd_rule() -> None:
    mask = np.zeros((4, 4), dtype=np.uint8)
    polygon("a", [[0, 0, 4, 4, 4, 0, 0, 4]], where="f").paint(mask, 1)
    ring = [(0.0, 0.0), (4.0, 4.0), (4.0, 0.0), (0.0, 4.0)]
    wanted = inside_by_loops([ring], 4, 4)
    np.testing.assert_array_equal(mask[wanted != 0.5], wanted[wanted != 0.5])
    assert not mask[0, 1:3].any()
    assert not mask[0:4:3, 1:3].any()


@pytest.mark.parametrize("ring", [[20, 0, 30, 0, 30, 9], [0, -9, 5, -9, 5, -1]])
def test_a_polygon_outside_of_the_image_is_an_error(ring: list[float]) -> None:
    with pytest.raises(InputError, match="f: an area of a lies outside of the image, which is 6x4"):
        polygon("a", [ring], where="f").paint(np.zeros((4, 6), dtype=np.uint8), 1)


@pytest.mark.parametrize(("ring", "message"), [([], "0 points"), ([1, 2, 3, 4], "2 points"), ([1, 2, 3], "odd number")])
def test_too_few_points_are_an_error(ring: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        polygon("a", [ring], where="f")
