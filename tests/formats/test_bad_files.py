"""Files that no tool wrote, or that do not fit: one line, and nothing is written."""

from __future__ import annotations

import base64
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from there_and_back import KINDS, NAMES, annotated, exported, imported, read_masks
from u2pl.commands.export_masks import DraftOptions, export
from u2pl.errors import InputError
from u2pl.formats import Annotated, reading
from u2pl.formats.mask_pictures import index_png

IMAGE = {"id": 1, "file_name": "x.png", "height": 4, "width": 6}
CATEGORY = {"id": 1, "name": "sky"}
LABELME = {"version": "5", "flags": {}, "imagePath": "x.png", "imageData": None, "imageHeight": 4, "imageWidth": 6}
RESULT = {"type": "polygonlabels", "original_width": 6, "original_height": 4, "from_name": "a", "to_name": "b"}
TRIANGLE = [0, 0, 3, 0, 3, 3]
PIXEL = base64.b64encode(index_png(np.full((1, 1), 1, dtype=np.uint8), ())).decode()


def coco(segmentation: Any, **image: Any) -> dict[str, Any]:
    annotation = {"id": 5, "image_id": 1, "category_id": 1, "segmentation": segmentation}
    return {"images": [{**IMAGE, **image}], "annotations": [annotation], "categories": [CATEGORY]}


def labelme(**shape: Any) -> dict[str, Any]:
    return {**LABELME, "shapes": [{"label": "sky", "points": [[0, 0], [3, 0], [3, 3]], **shape}]}


def studio(value: dict[str, Any], **result: Any) -> list[dict[str, Any]]:
    return [{"data": {"image": "x.png"}, "annotations": [{"result": [{**RESULT, "value": value, **result}]}]}]


def cvat(inside: str, image: str = 'name="x.png" width="6" height="4"') -> str:
    return f'<annotations><version>1.1</version><image id="0" {image}>{inside}</image></annotations>'


def supervisely(geometry: dict[str, Any]) -> dict[str, Any]:
    return {"size": {"height": 4, "width": 6}, "objects": [{"classTitle": "sky", **geometry}]}


BAD = [
    ("coco", [], "is no file of COCO"),
    ("coco", {"images": [], "annotations": []}, "the key categories is missing"),
    ("coco", "{", "is damaged: Invalid JSON: EOF"),
    ("coco", b"\xff\xfe\x00", "is damaged"),
    ("coco", "[" * 100_000, "is damaged"),
    ("coco", LABELME, "is no file of COCO: the key images is missing"),
    ("coco", coco([TRIANGLE], height=0), "images.0.height is 0"),
    ("coco", coco([TRIANGLE], height=10**6, width=10**6), "is not possible"),
    ("coco", coco([[0, 0, 3]]), "odd number"),
    ("coco", coco([[0, 0, 3, 3]]), "annotation 5: a polygon has 2 points"),
    ("coco", coco([[20, 20, 30, 20, 30, 30]]), "lies outside of the image, which is 6x4"),
    ("coco", coco([[0, 0, 1e9, 0, 3, 3]]), r"segmentation.polygons.0.2 is 1000000000.0: Input should be less"),
    ("coco", coco([[0, 0, float("nan"), 0, 3, 3]]), r"segmentation.polygons.0.2 is nan: Input should be a finite"),
    ("coco", coco("0 0 3"), "segmentation is '0 0 3': it is of another kind"),
    ("coco", '{"images": [], "annotations": [], "categories": [{"id": 1, "name": NaN}]}', "is no file|is damaged"),
    ("coco", coco({"size": [4, 6], "counts": [3, 2]}), "run lengths for 5 pixels do not fit 24 pixels"),
    ("coco", coco({"size": [4, 6], "counts": [30, -6]}), "do not fit 24 pixels"),
    ("coco", coco({"size": [4, 6], "counts": [2**70]}), "is no list of run lengths"),
    ("coco", coco({"size": [4, 6], "counts": ""}), "no run lengths in COCO's text"),
    ("coco", coco({"size": [4, 6], "counts": "ü!"}), "no run lengths in COCO's text"),
    ("coco", coco({"size": [4, 6], "counts": "31"}), "do not fit 24 pixels"),
    ("coco", coco({"size": [5, 6], "counts": [30]}), "run lengths of 6x5 but the image x.png is 6x4"),
    ("coco", {**coco([TRIANGLE]), "images": [IMAGE, IMAGE]}, "is there twice"),
    ("coco", {**coco([TRIANGLE]), "images": [{**IMAGE, "id": 2}]}, "no image with the id 1"),
    ("coco", {**coco([TRIANGLE]), "categories": []}, "no category with the id 1"),
    ("coco", {**coco([TRIANGLE]), "images": [IMAGE, {**IMAGE, "id": 2}]}, "would get the same mask"),
    ("coco", coco([TRIANGLE], file_name="../x.png"), "leads out of the folder"),
    ("coco", coco([TRIANGLE], file_name="/etc/x.png"), "leads out of the folder"),
    ("coco", coco([TRIANGLE], file_name="C:\\x.png"), "leads out of the folder"),
    ("coco", {**coco([TRIANGLE]), "categories": [{"id": 1, "name": "a\u202eb"}]}, "control characters"),
    ("coco", {**coco([TRIANGLE]), "categories": [{"id": 1, "name": " a"}]}, "begins or ends with a space"),
    ("coco", {"images": [], "annotations": [], "categories": []}, "there is no image with annotations"),
    ("labelme", coco([TRIANGLE]), "is no file of LabelMe: the key shapes is missing"),
    ("labelme", {**labelme(), "imageHeight": None}, "do not say how large x.png is; add --images"),
    ("labelme", labelme(points=[[0, 0], [1, 1]]), "a polygon has 2 points"),
    ("labelme", labelme(shape_type="circle", points=[[0, 0]]), "a 'circle' of sky cannot be read"),
    ("labelme", labelme(shape_type="cube"), "a 'cube' of sky cannot be read"),
    ("labelme", labelme(label="sky\nroad"), r"the class 'sky\\nroad' holds control characters"),
    ("labelme", labelme(points=[[7, 5], [9, 5], [9, 9]]), "an area of sky lies outside of the image, which is 6x4"),
    ("labelme", labelme(shape_type="mask", points=[[6, 0], [6, 0]], mask=PIXEL), "an area of sky lies outside"),
    ("labelme", labelme(shape_type="point", points=[[1, 1]]), "there is no image with annotations"),
    ("labelme", labelme(shape_type="mask", points=[[0, 0], [1, 1]], mask="@@"), "the picture of a mask is damaged"),
    ("label-studio", coco([TRIANGLE]), "is no file of Label Studio"),
    ("label-studio", [{"image": "x.png", "label": []}], "there is no image with annotations"),
    ("label-studio", [{"label": []}], "the key 0.data is missing"),
    ("label-studio", [{"filename": "x.png", "regions": [{"x": 1}]}], "the key 0.data is missing"),
    ("label-studio", [{**studio({})[0], "data": {"a": "x.png", "c": "y.png"}}], r"task 1: .* several images \(a, c\)"),
    (
        "label-studio",
        [{**studio({})[0], "data": {"a": "x", "b": 3}}],
        "no value of its data is the address of an image",
    ),
    (
        "label-studio",
        [{"data": {"image": "x.png"}, "annotations": [{"result": [RESULT, {**RESULT, "to_name": "c"}]}]}],
        r"its areas are on several images \(b, c\); give each a task",
    ),
    ("label-studio", [{"data": {"image": "x.png"}}], "there is no image with annotations"),
    ("label-studio", [{"data": {"image": "x.png"}, "annotations": [{"result": []}]}], "no image with annotations"),
    ("label-studio", studio({"points": [[0, 0], [9, 9], [0, 9]], "polygonlabels": []}), "has 0 labels"),
    ("label-studio", studio({"points": [[0, 0]], "polygonlabels": ["a"]}), "1 points"),
    ("label-studio", studio({"cube": 1, "rectanglelabels": ["a"]}, type="rectanglelabels"), "cannot be read"),
    ("label-studio", studio({"points": [[0, 0]], "x": 1e9}), "0.annotations.0.result.0.value.x is 1000000000.0"),
    (
        "label-studio",
        [
            {
                **studio({"points": [[0, 0], [9, 9], [0, 9]], "polygonlabels": ["a"]})[0],
                "data": {"image": "http://[x/../../y.png"},
            }
        ],
        "leads out of the folder",
    ),
    ("label-studio", studio({"rle": [0] * 9, "brushlabels": ["a"]}), "a brush of 0 pixels does not fit"),
    ("label-studio", studio({"rle": [0], "brushlabels": ["a"]}), "it has no head"),
    ("label-studio", studio({"rle": [999] * 9, "brushlabels": ["a"]}), "it has no head"),
    ("label-studio", studio({"rle": [0, 0, 0, 96, 57, 9, 9], "brushlabels": ["a"]}), "its brush ends after 0 pixels"),
    ("label-studio", studio({"rle": [0], "brushlabels": ["a"]}, image_rotation=90), "it was rotated"),
    ("label-studio", studio({"rle": [0], "brushlabels": ["a"]}, original_width=None), "are missing or differ"),
    ("cvat", "<annotations>", "is damaged xml"),
    ("cvat", "", "is damaged xml"),
    ("cvat", "<a/>", "it begins with 'a', not annotations"),
    ("cvat", "<annotations><track/></annotations>", "lists no image"),
    ("cvat", cvat("", image='name="x.png" width="6"'), "the attribute height of image is missing"),
    ("cvat", cvat("", image='name="x.png" width="6" height="nan"'), "height holds 'nan'"),
    ("cvat", cvat('<polygon points="0,0;3,0;3,3"/>'), "the attribute label of polygon is missing"),
    ("cvat", cvat('<polygon label="a" points="0,0;3,0;x"/>'), "points holds 'x'"),
    ("cvat", cvat('<polyline label="a" points="0,0;3,0"/>'), "there is no image with annotations"),
    ("cvat", cvat('<cuboid label="a" xtl1="0"/>'), "a cuboid of a cannot be read"),
    ("cvat", cvat('<ellipse label="a" cx="1" cy="1" rx="1"/>'), "the attribute ry of ellipse is missing"),
    ("cvat", cvat('<box label="a" xtl="0" ytl="0" xbr="1" ybr="1" rotation="inf"/>'), "rotation holds 'inf'"),
    ("cvat", cvat('<mask label="a" rle="1,2" left="0" top="0" width="2" height="2"/>'), "for 3 pixels do not fit 4"),
    ("cvat", cvat('<mask label="a" rle="1;2" left="0" top="0" width="2" height="2"/>'), "is no list of run lengths"),
    ("cvat", cvat('<mask label="a" rle="1,3" left="5" top="0" width="2" height="2"/>'), "reaches beyond the image"),
    ("cvat", '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotations>&b;</annotations>', "declares entities"),
    ("cvat", '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>', "declares entities"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_file_is_one_line_and_writes_nothing(name: str, content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / ("file.xml" if name == "cvat" else "file.json")
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=message) as raised:
        imported(file, tmp_path / "set", name)
    assert "\n" not in str(raised.value)
    assert sorted(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ({"geometryType": "point", "points": {"exterior": [[1, 1]]}}, "there is no image with annotations"),
        ({"geometryType": "cuboid", "points": {"exterior": [[1, 1]]}}, "a 'cuboid' of sky cannot be read"),
        ({"geometryType": "bitmap", "bitmap": {"data": PIXEL, "origin": [0, 4]}}, "lies outside of the image"),
        ({"geometryType": "polygon", "points": {"exterior": []}}, "0 points"),
        ({"geometryType": "bitmap", "bitmap": {"data": "eJw=", "origin": [0, 0]}}, "picture of a mask is damaged"),
        ({"geometryType": "bitmap"}, "a 'bitmap' of sky cannot be read"),
        ({}, "the key objects.0.geometryType is missing"),
    ],
)
def test_a_bad_object_of_supervisely(geometry: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "in" / "ds0" / "ann").mkdir(parents=True)
    (tmp_path / "in" / "meta.json").write_text('{"classes": [{"title": "sky", "color": "#aabbcc"}]}')
    (tmp_path / "in" / "ds0" / "ann" / "x.png.json").write_text(json.dumps(supervisely(geometry)))
    with pytest.raises(InputError, match=message):
        imported(tmp_path / "in", tmp_path / "set", "supervisely")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(("name", "shapes"), KINDS, ids=str)
def test_an_empty_folder_and_a_missing_file(name: str, shapes: str | None, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        imported(tmp_path / "empty", tmp_path / "set", name)
    with pytest.raises(InputError, match="nothing is missing; give what the tool exported"):
        imported(tmp_path / "nothing", tmp_path / "set", name)


def zipped(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("member", ["../out.json", "/out.json", "a/../../out.json", "C:\\out.json"])
def test_names_in_a_zip_do_not_lead_out_of_it(member: str, tmp_path: Path) -> None:
    file = zipped(tmp_path / "a.zip", {member: "{}"})
    with pytest.raises(InputError, match="leads out of the folder"):
        imported(file, tmp_path / "set", "coco")
    assert sorted(tmp_path.iterdir()) == [file]


def test_a_zip_of_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = zipped(tmp_path / "a.zip", {"a.json": " " * 1000})
    monkeypatch.setattr(reading, "_LARGEST", 999)
    with pytest.raises(InputError, match="unpack it yourself"):
        imported(file, tmp_path / "set", "coco")


def test_a_damaged_zip(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "a.zip", {"a.json": json.dumps(coco([TRIANGLE])) * 50}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    flipped = bytearray(whole)
    flipped[60] ^= 255
    (tmp_path / "flipped.zip").write_bytes(flipped)
    for name in ("cut", "flipped"):
        with pytest.raises(InputError, match=rf"{name}.zip is a damaged"):
            imported(tmp_path / f"{name}.zip", tmp_path / "set", "coco")


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_whose_content_is_damaged(how: int, tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.writestr("a.json", json.dumps(coco([TRIANGLE])))
    whole = bytearray(file.read_bytes())
    for place in (40, 50, 70):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"a.zip is a damaged or unreadable zip"):
            imported(file, tmp_path / "set", "coco")


def test_several_projects_are_no_choice(scene: np.ndarray, tmp_path: Path) -> None:
    for name in ("one", "two"):
        exported({"x.png": scene}, tmp_path / "in" / name, "supervisely")
    with pytest.raises(InputError, match=r"holds several meta.json \(one/meta.json, two/meta.json"):
        imported(tmp_path / "in", tmp_path / "set", "supervisely")


def test_errors_inside_of_a_zip_name_it(tmp_path: Path) -> None:
    file = zipped(tmp_path / "a.zip", {"in/a.json": "[]"})
    with pytest.raises(InputError, match=r"^\S+/a\.zip/in/a\.json: is no file of COCO"):
        imported(file, tmp_path / "set", "coco")


def test_several_files_are_no_choice(tmp_path: Path) -> None:
    file = zipped(tmp_path / "a.zip", {"a.json": "{}", "b.json": "{}"})
    with pytest.raises(InputError, match=r"holds several json \(a.json, b.json"):
        imported(file, tmp_path / "set", "coco")


def test_a_class_that_the_list_does_not_have(scene: np.ndarray, tmp_path: Path) -> None:
    tool = exported({"x.png": scene}, tmp_path / "tool", "coco")
    (tmp_path / "names.txt").write_text("sky\nBäume\n")
    with pytest.raises(InputError, match="the class \"road & 'path'\" of the annotations is not in"):
        imported(tool, tmp_path / "set", "coco", classes=tmp_path / "names.txt")
    with pytest.raises(InputError, match="--background 'nothing': is not in"):
        imported(tool, tmp_path / "set", "coco", classes=tool / "classes.txt", background="nothing")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "classes.txt").write_text("\n".join(reversed(NAMES)))
    assert imported(tool, tmp_path / "set", "coco").classes == NAMES[::-1]
    np.testing.assert_array_equal(read_masks(tmp_path / "set")["x"], np.where(scene == 255, 255, 2 - scene))
    with pytest.raises(InputError, match="names other classes"):
        imported(tool, tmp_path / "set", "coco", classes=tool / "classes.txt")


def test_masks_that_stay_keep_their_classes(scene: np.ndarray, tmp_path: Path) -> None:
    tool, out = exported({"x.png": scene}, tmp_path / "tool", "coco"), tmp_path / "set"
    (out / "masks").mkdir(parents=True)
    mine = out / "masks" / "y.tif"
    Image.fromarray(scene).save(mine)
    with pytest.raises(InputError, match=r"y.tif is there, and no classes.txt says .*; add --classes"):
        imported(tool, out, "coco")
    assert list(out.rglob("*.*")) == [mine]
    imported(tool, out, "coco", classes=tool / "classes.txt")
    (tmp_path / "more.txt").write_text("\n".join([*NAMES, "tree"]))
    imported(tool, out, "coco", classes=tmp_path / "more.txt", overwrite=True)
    (tmp_path / "other.txt").write_text("\n".join(NAMES[::-1]))
    with pytest.raises(InputError, match=r"y.tif has the classes of .*classes.txt, which would get other numbers"):
        imported(tool, out, "coco", classes=tmp_path / "other.txt", overwrite=True)
    mine.rename(mine.with_name("x.tif"))
    with pytest.raises(InputError, match=r"x.tif is another mask of an image"):
        imported(tool, out, "coco", overwrite=True, classes=tmp_path / "more.txt")


def test_images_are_found_by_their_names(scene: np.ndarray, tmp_path: Path) -> None:
    images = tmp_path / "images"
    annotated({"a/x.png": scene, "b/x.png": scene, "b/c/y.png": scene}, images)
    tool = exported({"deep/b/x.jpg": scene, "y.jpg": scene}, tmp_path / "tool", "cvat")
    imported(tool, tmp_path / "set", "cvat", images=images)
    assert read_masks(tmp_path / "set").keys() == {"b/x", "b/c/y"}
    for file, message in (("x.png", "x.png may be a/x or b/x"), ("z.png", "there is no image called z.png")):
        tool = exported({file: scene}, tmp_path / file, "cvat")
        with pytest.raises(InputError, match=message):
            imported(tool, tmp_path / "other", "cvat", images=images)
    tool = exported({"y.png": scene, "b/c/y.png": scene}, tmp_path / "twice", "cvat")
    with pytest.raises(InputError, match="would get the same mask"):
        imported(tool, tmp_path / "other", "cvat", images=images)
    tool = exported({"y.png": scene[1:]}, tmp_path / "size", "cvat")
    with pytest.raises(InputError, match=r"the annotations of y.png are for 60x39 but the image is 60x40"):
        imported(tool, tmp_path / "other", "cvat", images=images)
    assert not (tmp_path / "other").exists()


def test_names_of_images_match_however_their_letters_are_composed(scene: np.ndarray, tmp_path: Path) -> None:
    apart, composed = "Ba\u0308ume/x.png", "B\u00e4ume/x.png"
    for number, (stored, named) in enumerate(((apart, composed), (composed, apart))):
        annotated({stored: scene, "other/x.png": scene}, tmp_path / f"images{number}")
        tool = exported({named: scene}, tmp_path / f"tool{number}", "coco")
        imported(tool, tmp_path / f"set{number}", "coco", images=tmp_path / f"images{number}")
        assert read_masks(tmp_path / f"set{number}").keys() == {stored.removesuffix(".png")}


def test_each_image_is_looked_for_once(scene: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{n}.png": scene for n in range(9)}
    annotated(files, tmp_path / "images")
    tool = exported(files, tmp_path / "tool", "coco")
    listed: list[object] = []
    iterdir, listdir = Path.iterdir, os.listdir
    monkeypatch.setattr(Path, "iterdir", lambda path: listed.append(path) or iterdir(path))
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listdir(path))
    imported(tool, tmp_path / "set", "coco", images=tmp_path / "images")
    assert sum(Path(str(path)).name == "images" for path in listed) == 1


def test_categories_of_one_name_are_one_class(tmp_path: Path) -> None:
    whole = coco([TRIANGLE])
    whole["categories"] = [{"id": n, "name": name} for n, name in ((3, "sky"), (1, "sky"), (2, "sea"))]
    (tmp_path / "file.json").write_text(json.dumps(whole))
    assert imported(tmp_path / "file.json", tmp_path / "set", "coco").classes == ("sky", "sea")
    assert read_masks(tmp_path / "set")["x"][0, 1] == 0


def test_masks_of_others_stay_unless_overwrite(scene: np.ndarray, tmp_path: Path) -> None:
    tool = exported({"x.png": scene, "y.png": scene}, tmp_path / "tool", "coco")
    mine = tmp_path / "set" / "masks" / "y.png"
    mine.parent.mkdir(parents=True)
    Image.fromarray(scene[::-1].copy()).save(mine)
    before = mine.read_bytes()
    with pytest.raises(InputError, match=r"y.png exists, and u2pl did not write it"):
        imported(tool, tmp_path / "set", "coco")
    assert mine.read_bytes() == before
    assert [path.name for path in mine.parent.parent.rglob("*") if path.is_file()] == ["y.png"]
    imported(tool, tmp_path / "set", "coco", overwrite=True)
    imported(tool, tmp_path / "set", "coco")  # its own masks
    np.testing.assert_array_equal(read_masks(tmp_path / "set")["y"], scene)


def test_an_error_in_the_last_image_leaves_all_as_it_was(scene: np.ndarray, tmp_path: Path) -> None:
    tool = exported({"x.png": scene, "y.png": scene}, tmp_path / "tool", "coco", shapes="rle")
    imported(tool, tmp_path / "set", "coco")
    file = tool / "annotations" / "instances_default.json"
    whole = json.loads(file.read_text())
    whole["annotations"] = whole["annotations"][1:]
    whole["annotations"][-1]["segmentation"]["counts"] = "31"
    file.write_text(json.dumps(whole))
    before = {path: path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="run lengths"):
        imported(tool, tmp_path / "set", "coco")
    assert before == {path: path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file()}


def test_what_a_killed_import_left_goes_away(scene: np.ndarray, tmp_path: Path) -> None:
    tool = exported({"x.png": scene}, tmp_path / "tool", "coco")
    left = tmp_path / "set" / ".u2pl-import" / "deep" / "old.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    imported(tool, tmp_path / "set", "coco")
    found = {path.relative_to(tmp_path / "set").as_posix() for path in (tmp_path / "set").rglob("*")}
    assert found == {"masks", "masks/x.png", "classes.txt"}


def test_masks_with_values_that_the_legend_lacks(scene: np.ndarray, tmp_path: Path) -> None:
    for name in ("png", "colour-png", "voc"):
        tool = exported({"x.png": scene}, tmp_path / name, name)
        (mask,) = tool.rglob("*.png")
        Image.fromarray(np.full((4, 6) if name == "png" else (4, 6, 3), 77, dtype=np.uint8)).save(mask)
        with pytest.raises(
            InputError, match=r"x.png holds (the value 77|values that \S+/(classes.csv|labelmap.txt) does)"
        ):
            imported(tool, tmp_path / "set", name)
        mask.write_bytes(b"nothing")
        with pytest.raises(InputError, match=r"x.png is no"):
            imported(tool, tmp_path / "set", name)


@pytest.mark.parametrize(("package", "name"), [("shapely", "coco"), ("defusedxml", "cvat")])
def test_a_missing_package_is_named_before_anything_is_written(
    package: str, name: str, scene: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = exported({"x.png": scene}, tmp_path / "tool", name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}; run: pip install 'u2pl\[formats\]'"):
        exported({"x.png": scene}, tmp_path / "out", name) if name == "coco" else imported(tool, tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "cocoa"}, "--format 'cocoa': should be png, colour-png, coco"),
        ({"format": "coco", "shapes": "masks"}, "--shapes 'masks': with --format coco it is polygons or rle"),
        ({"format": "png", "shapes": "rle"}, "with --format png it is masks"),
        ({"format": "coco", "unsure": "maybe"}, "--unsure 'maybe': should be ignore or class"),
        ({"format": "coco", "tolerance": 0.0}, "--tolerance"),
        ({"format": "coco", "tolerance": float("nan")}, "--tolerance"),
        ({"format": "png", "background": "sky"}, "--background: --format png has masks"),
        ({"format": "coco", "background": "sea"}, "--background 'sea': the classes are sky"),
    ],
)
def test_bad_options_of_an_export(options: dict[str, Any], message: str, scene: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export(annotated({"x.png": scene}), tmp_path / "out", names=NAMES, options=DraftOptions(**options))
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported(scene: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for names, options, message in (
        (("sky", "?", "tree"), {"format": "coco", "unsure": "class"}, "the class '\\?' cannot be exported"),
        (("sky", "?", "tree"), {"format": "coco"}, "the class '\\?' cannot be exported"),
        (("sky", "ignore", "tree"), {"format": "voc"}, "the class 'ignore' cannot be exported"),
        (("sky", "a:b", "tree"), {"format": "voc"}, "a labelmap.txt has no place for"),
        (("sky", "road"), {"format": "coco"}, "the mask of x.png holds 2, but there are 2 classes"),
    ):
        with pytest.raises(InputError, match=message):
            export([Annotated("x.png", scene)], out, names=names, options=DraftOptions(**options))
    with pytest.raises(InputError, match="its name cannot be written"):
        exported({"x\n.png": scene}, out, "cvat")
    with pytest.raises(InputError, match="two images in different folders are called x"):
        exported({"a/x.png": scene, "b/x.png": scene}, tmp_path / "voc", "voc")
    exported({"x.png": scene}, tmp_path / "filled", "png")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--out .*file: is a file; give a folder"):
        exported({"x.png": scene}, tmp_path / "file", "coco")
    with pytest.raises(InputError, match="it holds files; choose another folder, or add --overwrite"):
        exported({"x.png": scene}, tmp_path / "filled", "coco")
