"""Boxes, circles, ellipses, points and pictures as the tools store them, compared with loops over pixels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from there_and_back import imported, read_masks

HEIGHT, WIDTH = 20, 30
Inside = Callable[[float, float], bool]


def by_loops(inside: Inside) -> np.ndarray:
    """0 where the centre of a pixel is inside, 255 elsewhere."""
    rows = [[0 if inside(x + 0.5, y + 0.5) else 255 for x in range(WIDTH)] for y in range(HEIGHT)]
    return np.array(rows, dtype=np.uint8)


def turned_back(x: float, y: float, degrees: float, about: tuple[float, float]) -> tuple[float, float]:
    """A point before it was turned clockwise, as a person sees it: from right to down."""
    angle, length = math.atan2(y - about[1], x - about[0]) - math.radians(degrees), math.dist((x, y), about)
    return about[0] + length * math.cos(angle), about[1] + length * math.sin(angle)


def box(left: float, top: float, right: float, bottom: float, degrees: float, about: tuple[float, float]) -> Inside:
    def inside(x: float, y: float) -> bool:
        x, y = turned_back(x, y, degrees, about)
        return left < x < right and top < y < bottom

    return inside


def ellipse(x0: float, y0: float, wide: float, high: float, degrees: float = 0) -> Inside:
    def inside(x: float, y: float) -> bool:
        x, y = turned_back(x, y, degrees, (x0, y0))
        return ((x - x0) / wide) ** 2 + ((y - y0) / high) ** 2 < 1

    return inside


def labelme(kind: str, points: list[list[float]]) -> Any:
    shape = {"label": "a", "shape_type": kind, "points": points}
    return {"imagePath": "x.png", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [shape]}


def cvat(area: str) -> str:
    return f'<annotations><image name="x.png" width="{WIDTH}" height="{HEIGHT}">{area}</image></annotations>'


def area_of_studio(kind: str, **value: Any) -> dict[str, Any]:
    return {"original_width": WIDTH, "original_height": HEIGHT, **value, f"{kind}labels": ["a"]}


def studio(kind: str, **value: Any) -> Any:
    area = area_of_studio(kind, **value)
    return [
        {"data": {"image": "x.png"}, "annotations": [{"result": [{**area, "type": f"{kind}labels", "value": area}]}]}
    ]


def json_min(kind: str, **value: Any) -> Any:
    return [
        {"image": "/data/upload/1/0a1b2c3d-x.png", "id": 7, "tool": [area_of_studio(kind, **value)], "annotator": 1}
    ]


TURNED = {"x": 20, "y": 25, "width": 40, "height": 30, "rotation": 20}
OVAL = {"x": 50, "y": 50, "radiusX": 30, "radiusY": 20, "rotation": 70}


@pytest.mark.parametrize(
    ("name", "content", "inside"),
    [
        ("labelme", labelme("circle", [[12.2, 9.1], [12.2, 3]]), ellipse(12.2, 9.1, 6.1, 6.1)),
        ("labelme", labelme("rectangle", [[20, 15], [3, 4]]), box(3, 4, 20, 15, 0, (0, 0))),
        ("labelme", labelme("rectangle", [[3, 4], [20, 4], [20, 15], [3, 15]]), box(3, 4, 20, 15, 0, (0, 0))),
        ("cvat", cvat('<ellipse label="a" cx="14.1" cy="9" rx="9" ry="4"/>'), ellipse(14.1, 9, 9, 4)),
        ("cvat", cvat('<ellipse label="a" cx="14.1" cy="9" rx="9" ry="4" rotation="30"/>'), ellipse(14.1, 9, 9, 4, 30)),
        ("cvat", cvat('<box label="a" xtl="3" ytl="4" xbr="20" ybr="15"/>'), box(3, 4, 20, 15, 0, (0, 0))),
        (
            "cvat",
            cvat('<box label="a" xtl="3" ytl="6" xbr="20" ybr="12" rotation="25.5"/>'),
            box(3, 6, 20, 12, 25.5, (11.5, 9)),
        ),
        ("label-studio", studio("rectangle", **TURNED), box(6, 5, 18, 11, 20, (6, 5))),
        ("label-studio", studio("", **TURNED), box(6, 5, 18, 11, 20, (6, 5))),
        ("label-studio", studio("ellipse", **OVAL), ellipse(15, 10, 9, 4, 70)),
        ("label-studio", json_min("rectangle", **TURNED), box(6, 5, 18, 11, 20, (6, 5))),
        ("label-studio", json_min("ellipse", **OVAL), ellipse(15, 10, 9, 4, 70)),
    ],
)
def test_an_area_has_the_pixels_of_a_loop(name: str, content: Any, inside: Inside, tmp_path: Path) -> None:
    np.testing.assert_array_equal(drawn(name, content, tmp_path), by_loops(inside))


def drawn(name: str, content: Any, tmp_path: Path, notes: tuple[str, ...] = ()) -> np.ndarray:
    """The mask of x.png. Beside it there is nothing."""
    file = tmp_path / ("file.xml" if name == "cvat" else "file.json")
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    done = imported(file, tmp_path / "set", name)
    assert (done.classes, done.notes) == (("a",), notes)
    (mask,) = read_masks(tmp_path / "set").values()
    return mask


def test_what_has_no_area_is_left_out_and_noted(tmp_path: Path) -> None:
    of_labelme = labelme("rectangle", [[3, 4], [20, 15]])
    for kind in ("point", "line", "linestrip"):
        of_labelme["shapes"] += labelme(kind, [[1, 1], [9, 9]])["shapes"]
    rectangle = '<box label="a" xtl="3" ytl="4" xbr="20" ybr="15"/>'
    of_cvat = cvat(f'{rectangle}<points label="p" points="1,1"/><polyline label="a" points="1,1;2,2"/>')
    of_studio = studio("rectangle", x=10, y=20, width=170 / 3, height=55)
    of_studio[0]["annotations"][0]["result"] += studio("keypoint", x=1, y=1, width=1)[0]["annotations"][0]["result"]
    ring = [3, 4, 20, 4, 20, 15, 3, 15]
    of_coco = {
        "images": [{"id": 1, "file_name": "x.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "segmentation": segmentation, "bbox": [1, 2, 3, 4]}
            for segmentation in ([ring], [])
        ],
        "categories": [{"id": 1, "name": "a"}],
    }
    cases = (("labelme", of_labelme, 3), ("cvat", of_cvat, 2), ("label-studio", of_studio, 1), ("coco", of_coco, 1))
    for name, content, count in cases:
        (tmp_path / name).mkdir()
        note = f"{count} points, lines or other shapes without area are left out"
        mask = drawn(name, content, tmp_path / name, notes=(note,))
        np.testing.assert_array_equal(mask, by_loops(box(3, 4, 20, 15, 0, (0, 0))))


def test_of_several_rows_of_json_min_for_a_task_the_last_one_counts(tmp_path: Path) -> None:
    first = json_min("rectangle", x=0, y=0, width=100, height=100)
    last = json_min("rectangle", **TURNED)
    np.testing.assert_array_equal(
        drawn("label-studio", [*first, *last], tmp_path), by_loops(box(6, 5, 18, 11, 20, (6, 5)))
    )
