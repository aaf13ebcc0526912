"""Files that other programs made are read, and they read ours.

The folder ``files`` holds what Datumaro 1.13 (coco, cvat, voc) and the converter of Label Studio's SDK 2.1 wrote for
``MASK``.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import zlib
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from there_and_back import NAMES, exported, imported, masks, read_masks
from u2pl.formats import brush_runs, runs
from u2pl.formats.label_studio_images import file_of
from u2pl.formats.pictures_in_json import pixels_from
from u2pl.formats.shapes import Window, regions

FILES = Path(__file__).parent / "files"
OWN = ("sky", "road", "Bäume")
MASK = np.full((9, 14), 255, dtype=np.uint8)
MASK[1:8, 1:12] = 0
MASK[2:6, 3:9] = 1
MASK[3:5, 5:7] = 0
MASK[6:, 8:] = 2
MASK[0, 0] = 1


def own(tmp_path: Path, file: Path, format: str, **options: Any) -> np.ndarray:
    """The mask that is imported, with the classes of MASK."""
    (tmp_path / "names.txt").write_text("\n".join([*OWN, "background"]))
    imported(file, tmp_path / "set", format, classes=tmp_path / "names.txt", **options)
    return read_masks(tmp_path / "set")["x"]


@pytest.mark.parametrize("name", ["coco", "cvat"])
def test_files_of_datumaro(name: str, tmp_path: Path) -> None:
    with_polygon = MASK.copy()
    with_polygon[8, 1:3] = 1
    np.testing.assert_array_equal(own(tmp_path, FILES / name, name), with_polygon)


def test_the_order_of_classes_is_that_of_the_file(tmp_path: Path) -> None:
    for name in ("coco", "cvat"):
        assert imported(FILES / name, tmp_path / name, name).classes == OWN


def test_masks_of_datumaro_as_voc_and_as_cvat(tmp_path: Path) -> None:
    np.testing.assert_array_equal(own(tmp_path, FILES / "voc", "voc"), np.where(MASK == 255, 3, MASK))
    np.testing.assert_array_equal(own(tmp_path, FILES / "voc", "cvat"), MASK)
    found = own(tmp_path, FILES / "voc", "cvat", background="background")
    np.testing.assert_array_equal(found, np.where(MASK == 255, 3, MASK))


def test_brushes_of_label_studio(tmp_path: Path) -> None:
    np.testing.assert_array_equal(own(tmp_path, FILES / "label-studio", "label-studio"), MASK)


def test_a_bitmap_of_superviselys_documentation() -> None:
    text = (
        "eJzrDPBz5+WS4mJgYOD19HAJAtLMIMwIInOeqf8BUmwBPiGuQPr///9Lb86/C2QxlgT5BTM4PLuRBuTwebo4hlTMSa44sKHhISMDuxpTYrr0"
        "3F6gDIOnq5/LOqeEJgDM5ht6"
    )
    found = pixels_from(text, where="", packed=True)
    np.testing.assert_array_equal(found, [[True, True, True], [True, False, True], [True, True, True]])
    plain = base64.b64encode(zlib.decompress(base64.b64decode(text))).decode()  # as old projects have it
    np.testing.assert_array_equal(pixels_from(plain, where="", packed=True), found)


@settings(max_examples=60, deadline=None)
@given(mask=masks())
def test_run_lengths_are_those_of_pycocotools(mask: np.ndarray) -> None:
    inside = mask == 1
    text = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))["counts"].decode()
    counts = runs.counts_of(inside.ravel(order="F"))
    assert runs.to_text(counts) == text
    np.testing.assert_array_equal(runs.from_text(text, where=""), counts)


def test_long_runs_are_those_of_pycocotools() -> None:
    inside = np.zeros((3000, 2000), dtype=bool)
    inside[5, 7] = inside[1000:1002, 900:] = inside[0, 1999] = True
    text = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))["counts"].decode()
    counts = runs.counts_of(inside.ravel(order="F"))
    assert runs.to_text(counts) == text
    np.testing.assert_array_equal(runs.from_text(text, where=""), counts)


@settings(max_examples=100, deadline=None)
@given(mask=masks(), above=st.integers(0, 2), left=st.integers(0, 2), below=st.integers(0, 2), right=st.integers(0, 2))
def test_run_lengths_of_a_window_are_those_of_the_image(
    mask: np.ndarray, above: int, left: int, below: int, right: int
) -> None:
    window = Window(above, left, mask == 1)
    size = (above + mask.shape[0] + below, left + mask.shape[1] + right)
    flat = window.within(size).ravel()
    np.testing.assert_array_equal(runs.counts_within(window, size), runs.counts_of(flat))
    places = runs.places_of(runs.counts_of(flat), flat.size, where="")
    np.testing.assert_array_equal(places, np.flatnonzero(flat))


def test_thousands_of_holes_and_parts_take_no_pass_over_the_image_each() -> None:
    rows, columns = np.mgrid[:400, :2000]
    mask = ((rows % 4 < 2) & (columns % 4 < 2)).astype(np.uint8)  # 25 000 parts are as many holes of the other class
    mask[:, 1000:] = 0
    began = perf_counter()
    border = regions(mask == 0)[0]
    np.testing.assert_array_equal(border.window.pixels, (mask == 0)[border.window.top :, border.window.left :])
    assert sum(len(ring) for ring in border.simplified(0.35)) > 4 * 25_000
    for part in regions(mask == 1)[:2000]:
        assert runs.counts_within(part.window, mask.shape)[1] == 2
    assert perf_counter() - began < 40


@settings(max_examples=60, deadline=None)
@given(mask=masks())
def test_brushes_are_as_the_documentation_of_rle_pack_decodes_them(mask: np.ndarray) -> None:
    inside = mask == 1
    assert decoded(brush_runs.encode(runs.counts_of(inside.ravel()))) == [
        255 * value for value in inside.ravel().tolist() for _ in range(4)
    ]
    np.testing.assert_array_equal(
        brush_runs.decode(brush_runs.encode(runs.counts_of(inside.ravel())), inside.shape, where=""), inside
    )


def test_a_brush_of_many_pixels_is_split_into_runs() -> None:
    inside = np.ones((300, 301), dtype=bool)
    inside[:200, 5:] = False
    np.testing.assert_array_equal(
        brush_runs.decode(brush_runs.encode(runs.counts_of(inside.ravel())), inside.shape, where=""), inside
    )
    assert (
        decoded(brush_runs.encode(runs.counts_of(inside.ravel())))[3::4] == (255 * inside.ravel().astype(int)).tolist()
    )


def decoded(rle: list[int]) -> list[int]:
    """Label Studio's JavaScript, line by line."""
    bits, place = "".join(f"{byte:08b}" for byte in rle), 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    count, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < count:
        repeats = read(1)
        length = read(sizes[read(2)]) + 1
        out += [read(word)] * length if repeats else [read(word) for _ in range(length)]
    return out


@pytest.mark.parametrize("shapes", ["polygons", "rle"])
def test_pycocotools_reads_ours(shapes: str, scene: np.ndarray, tmp_path: Path) -> None:
    tool = exported({"x.png": scene}, tmp_path / "tool", "coco", shapes=shapes)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(tool / "annotations" / "instances_default.json")
    found = np.full(scene.shape, 255, dtype=np.uint8)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        pixels = coco.annToMask(annotation) > 0
        assert annotation["area"] == pixels.sum()
        left, top, width, height = annotation["bbox"]
        assert [left, top, width, height] == coco_mask.toBbox(coco_mask.encode(np.asfortranarray(pixels))).tolist()
        found[pixels] = annotation["category_id"] - 1
    np.testing.assert_array_equal(found, scene)
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == list(NAMES)


def test_polygons_of_coco_are_no_holes_and_later_ones_cover(tmp_path: Path) -> None:
    ring = [2, 2, 12, 2, 12, 8, 2, 8]
    annotations = [
        {"id": 1, "image_id": 4, "category_id": 9, "segmentation": [ring, [4, 4, 6, 4, 6, 6, 4, 6]]},
        {"id": 2, "image_id": 4, "category_id": 3, "segmentation": {"size": [9, 14], "counts": [9 * 13, 9]}},
    ]
    whole = {
        "images": [{"id": 4, "file_name": "x.jpg", "height": 9, "width": 14}],
        "annotations": annotations,
        "categories": [{"id": 9, "name": "road"}, {"id": 3, "name": "sky"}],
    }
    (tmp_path / "file.json").write_text(json.dumps(whole))
    wanted = np.full((9, 14), 255, dtype=np.uint8)
    wanted[2:8, 2:12] = 1
    wanted[:, 13] = 0
    assert imported(tmp_path / "file.json", tmp_path / "set", "coco").classes == ("sky", "road")
    np.testing.assert_array_equal(read_masks(tmp_path / "set")["x"], wanted)


def test_labelmes_own_drawing_of_ours_is_within_a_pixel(scene: np.ndarray, tmp_path: Path) -> None:
    tool = exported({"x.png": scene}, tmp_path / "tool", "labelme")
    file = json.loads((tool / "x.json").read_text())
    assert {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"} == file.keys()
    assert file["imagePath"] == "x.png"
    for shape in file["shapes"]:
        assert (shape["shape_type"], shape["group_id"], shape["flags"]) == ("polygon", None, {})
        drawn = Image.new("1", (60, 40))
        ImageDraw.Draw(drawn).polygon([tuple(point) for point in shape["points"]], outline=1, fill=1)
        member = np.pad(scene == NAMES.index(shape["label"]), 1)
        near = np.any([np.roll(member, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)], axis=0)[1:-1, 1:-1]
        assert not (np.array(drawn) & ~near).any()


def test_a_draft_of_label_studio_is_a_prediction_and_an_annotation_counts_more(tmp_path: Path) -> None:
    tool = exported({"x.png": MASK}, tmp_path / "tool", "label-studio", names=OWN, shapes="rle")
    tasks = json.loads((tool / "tasks.json").read_text())
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=x.png"
    assert "annotations" not in tasks[0]
    results = tasks[0]["predictions"][0]["result"]
    assert {each["from_name"] for each in results} == {"brush"}
    assert 'name="brush" toName="image"' in (tool / "labeling.xml").read_text()
    done = imported(tool, tmp_path / "drafts", "label-studio")
    assert done.notes == ("1 of 1 images have no annotation yet; their drafts are taken",)
    kept = [each for each in results if each["value"]["brushlabels"] == ["road"]]
    tasks[0]["annotations"] = [{"result": kept}, {"result": [], "was_cancelled": True}]
    tasks.append({"data": {"image": "y.png"}})
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    done = imported(tmp_path / "tasks.json", tmp_path / "set", "label-studio")
    assert done.notes == ("1 of 2 images have neither annotation nor draft; they are left out",)
    assert done.classes == ("road",)
    np.testing.assert_array_equal(read_masks(tmp_path / "set")["x"], np.where(MASK == 1, 0, 255))


def test_the_last_annotation_of_a_task_counts(tmp_path: Path) -> None:
    tasks = json.loads((FILES / "label-studio" / "project-3.json").read_text())
    first = {"result": tasks[0]["annotations"][0]["result"][:1]}
    tasks[0]["annotations"].insert(0, first)
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    np.testing.assert_array_equal(own(tmp_path, tmp_path / "tasks.json", "label-studio"), MASK)


INTERFACE = '<View><Image name="left" value="$before"/><Image name="right" value="$after"/></View>'


@pytest.mark.parametrize(
    ("data", "name", "interface"),
    [
        ({"photo": "a/x.png", "id": 7, "text": "after rain"}, "image", None),
        ({"photo": "https://example.org/x.PNG?token=1", "thumb": "y"}, "picture", None),
        ({"other": "y.png", "img": "x.png"}, "img", None),
        ({"other": "y.png", "image": "x.png"}, "picture", None),
        ({"img": "s3://bucket/12"}, "img", None),
        ({"before": "y.png", "after": "x.png"}, "right", INTERFACE),
        ({"image": "x.png", "height": "tall", "width": "1.5 m"}, "image", None),
    ],
    ids=["one", "address", "named", "usual", "without ending", "interface", "not its size"],
)
def test_the_key_of_the_image_is_found(data: dict[str, Any], name: str, interface: str | None, tmp_path: Path) -> None:
    tasks = json.loads((FILES / "label-studio" / "project-3.json").read_text())
    for each in tasks[0]["annotations"][0]["result"]:
        each["to_name"] = name
    (tmp_path / "tasks.json").write_text(json.dumps([{**tasks[0], "data": data}]))
    if interface is not None:
        (tmp_path / "labeling.xml").write_text(interface)
    imported(tmp_path / "tasks.json", tmp_path / "set", "label-studio")
    ((stem, mask),) = read_masks(tmp_path / "set").items()
    assert (Path(stem).name, mask.shape) == ("12" if name == "img" and len(data) == 1 else "x", MASK.shape)


def test_areas_of_cvat_cover_each_other_by_their_z_order(tmp_path: Path) -> None:
    box = '<box label="{}" xtl="{}" ytl="0" xbr="{}" ybr="4" z_order="{}"/>'
    drawn = box.format("top", 2, 4, 3) + box.format("bottom", 0, 6, -1) + box.format("middle", 1, 5, 0)
    text = f'<annotations><image name="x.png" width="6" height="4">{drawn}</image></annotations>'
    (tmp_path / "a.xml").write_text(text)
    assert imported(tmp_path / "a.xml", tmp_path / "set", "cvat").classes == ("bottom", "middle", "top")
    np.testing.assert_array_equal(read_masks(tmp_path / "set")["x"], [[0, 1, 2, 2, 1, 0]] * 4)


@pytest.mark.parametrize(
    ("image", "file"),
    [
        ("/data/local-files/?d=a/x%20y.png", "a/x y.png"),
        ("/data/upload/3/0a1b2c3d-x.png", "x.png"),
        ("/data/upload/12/a/0a1b2c3d.png", "a/0a1b2c3d.png"),
        ("https://example.org/a/B%C3%A4ume.jpg?token=1", "Bäume.jpg"),
        ("s3://bucket/a/x.png", "x.png"),
        ("a/x.png", "a/x.png"),
    ],
)
def test_addresses_of_images_in_label_studio(image: str, file: str) -> None:
    assert file_of(image) == file
