"""Masks that are exported and imported again are the same, in every format."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from there_and_back import KINDS, NAMES, annotated, exported, imported, masks, read_masks
from u2pl.commands.export_masks import DraftOptions, export
from u2pl.data.mask_values import mask_values
from u2pl.data.readers import READERS
from u2pl.errors import InputError

few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(("name", "shapes"), KINDS, ids=str)
@few
@given(first=masks(), second=masks(), per_class=st.booleans())
def test_masks_come_back(name: str, shapes: str | None, first: np.ndarray, second: np.ndarray, per_class: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first[0, 0] = second[-1, -1] = 1  # an image without any annotation is left out
        given_masks = {"a.png": first, "b.jpg": second}
        tool = exported(given_masks, Path(folder) / "tool", name, shapes=shapes, per_class=per_class)
        done = imported(tool, Path(folder) / "set", name, classes=tool / "classes.txt")
        assert done.classes == NAMES
        found = read_masks(Path(folder) / "set")
        assert found.keys() == {"a", "b"}
        np.testing.assert_array_equal(found["a"], first)
        np.testing.assert_array_equal(found["b"], second)


@pytest.mark.parametrize(("name", "shapes"), KINDS, ids=str)
def test_folders_spaces_quotes_and_umlauts_come_back(
    name: str, shapes: str | None, scene: np.ndarray, tmp_path: Path
) -> None:
    files = {"a/b/x y.png": scene, 'a/it\'s "Bäume" & <so>.jpg': scene.T.copy(), "top.tif": scene[::2].copy()}
    tool = exported(files, tmp_path / "tool", name, shapes=shapes)
    imported(tool, tmp_path / "set", name)
    found = read_masks(tmp_path / "set")
    flat = name == "voc"
    wanted = {(Path(file).stem if flat else file.rsplit(".", 1)[0]): mask for file, mask in files.items()}
    classes = (tmp_path / "set" / "classes.txt").read_text().splitlines()
    table = np.full(256, 255, dtype=np.uint8)
    table[: len(NAMES)] = [classes.index(each) for each in NAMES]  # Label Studio and LabelMe keep no order
    assert found.keys() == wanted.keys()
    for stem, mask in wanted.items():
        np.testing.assert_array_equal(found[stem], table[mask])


@pytest.mark.parametrize(("name", "shapes"), KINDS, ids=str)
def test_a_zip_is_read_like_its_folder(name: str, shapes: str | None, scene: np.ndarray, tmp_path: Path) -> None:
    tool = exported({"a/x.png": scene}, tmp_path / "tool", name, shapes=shapes)
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in tool.rglob("*"):
            archive.write(path, Path("project 1") / path.relative_to(tool))
    imported(tmp_path / "all.zip", tmp_path / "set", name, classes=tool / "classes.txt")
    (found,) = read_masks(tmp_path / "set").values()
    np.testing.assert_array_equal(found, scene)


@pytest.mark.parametrize(("name", "shapes"), KINDS, ids=str)
def test_unsure_pixels_can_be_a_class_and_are_ignored_again(
    name: str, shapes: str | None, scene: np.ndarray, tmp_path: Path
) -> None:
    tool = exported({"x.png": scene}, tmp_path / "tool", name, shapes=shapes, unsure="class")
    assert (tool / "classes.txt").read_text().splitlines() == [*NAMES, "?"]
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    done = imported(tool, tmp_path / "set", name, classes=tmp_path / "classes.txt")
    assert done.classes == NAMES
    np.testing.assert_array_equal(read_masks(tmp_path / "set")["x"], scene)


@pytest.mark.parametrize("shapes", ["polygons", "rle"])
@pytest.mark.parametrize("name", ["coco", "cvat", "label-studio", "labelme", "supervisely"])
def test_the_background_needs_no_shapes(name: str, shapes: str, scene: np.ndarray, tmp_path: Path) -> None:
    scene = np.where(scene == 255, 0, scene).astype(np.uint8)
    tool = exported({"x.png": scene}, tmp_path / "tool", name, shapes=shapes, background="sky")
    imported(tool, tmp_path / "set", name, background="sky", classes=tool / "classes.txt")
    np.testing.assert_array_equal(read_masks(tmp_path / "set")["x"], scene)
    imported(tool, tmp_path / "other", name, classes=tool / "classes.txt")
    np.testing.assert_array_equal(read_masks(tmp_path / "other")["x"], np.where(scene == 0, 255, scene))


def test_a_class_called_background_keeps_its_pixels_apart_from_ignored_ones(scene: np.ndarray, tmp_path: Path) -> None:
    for name, shapes in KINDS:
        folder = tmp_path / f"{name}-{shapes}"
        tool = exported({"x.png": scene}, folder / "tool", name, names=("road", "background", "car"), shapes=shapes)
        imported(tool, folder / "set", name, classes=tool / "classes.txt")
        np.testing.assert_array_equal(read_masks(folder / "set")["x"], scene)


def test_colours_that_come_twice_or_mean_ignored_pixels_are_replaced(scene: np.ndarray, tmp_path: Path) -> None:
    for palette in (((0, 0, 0),) * 3, ((224, 224, 192), (255, 255, 255), (0, 0, 0)), ((128, 0, 0),) * 3):
        for name, shapes in KINDS:
            folder = tmp_path / f"{name}-{shapes}-{hash(palette)}"
            options = DraftOptions(name, shapes)
            export(annotated({"x.png": scene}), folder / "tool", names=NAMES, palette=palette, options=options)
            imported(folder / "tool", folder / "set", name, classes=folder / "tool" / "classes.txt")
            np.testing.assert_array_equal(read_masks(folder / "set")["x"], scene)


@pytest.mark.parametrize(("name", "shapes"), KINDS, ids=str)
def test_images_without_annotation_stay_unlabeled(
    name: str, shapes: str | None, scene: np.ndarray, tmp_path: Path
) -> None:
    files = {"x.png": scene, "y.png": np.full_like(scene, 255)}
    tool = exported(files, tmp_path / "tool", name, shapes=shapes)
    done = imported(tool, tmp_path / "set", name)
    if "masks" in (shapes or "masks"):  # a picture of a mask is there
        assert (read_masks(tmp_path / "set").keys(), done.notes[-1:]) == ({"x", "y"}, ())
        return
    assert done.notes[-1] == "1 of 2 images have no annotation; they are left out"
    assert read_masks(tmp_path / "set").keys() == {"x"}
    imported(tool, tmp_path / "all", name, background="sky", classes=tool / "classes.txt")
    assert not read_masks(tmp_path / "all")["y"].any()  # sky is all that is not drawn


def test_as_many_classes_as_there_can_be_have_colours_of_their_own(tmp_path: Path) -> None:
    names, mask = [f"class {n}" for n in range(255)], np.arange(256, dtype=np.uint8).reshape(16, 16)
    tool = exported({"x.png": mask}, tmp_path / "tool", "cvat", names=names, shapes="masks")
    lines = (tool / "labelmap.txt").read_text().splitlines()[1:]
    assert len({line.split(":")[1] for line in lines}) == len(lines) == 256  # with those of the background
    assert len(np.unique(np.array(Image.open(tool / "SegmentationClass" / "x.png")).reshape(-1, 3), axis=0)) == 256
    assert imported(tool, tmp_path / "set", "cvat").classes == tuple(names)
    np.testing.assert_array_equal(read_masks(tmp_path / "set")["x"], mask)


def test_tools_list_images_in_the_order_that_is_given(scene: np.ndarray, tmp_path: Path) -> None:
    files = {"c.png": scene, "a.png": scene, "b.png": scene}
    for name in ("coco", "label-studio", "cvat"):
        tool = exported(files, tmp_path / name, name, shapes="rle")
        (path,) = (
            path
            for path in tool.rglob("*.*")
            if path.name in ("instances_default.json", "tasks.json", "annotations.xml")
        )
        assert re.findall(r"[abc](?=\.png)", path.read_text()) == ["c", "a", "b"]


def test_ignored_pixels_do_not_become_background(scene: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--unsure class"):
        exported({"x.png": scene}, tmp_path / "tool", "coco", background="sky")


@pytest.mark.parametrize("tolerance", [1.0, 3.0])
@pytest.mark.parametrize("name", ["coco", "cvat", "label-studio", "labelme", "supervisely"])
def test_coarser_polygons_stay_within_their_tolerance(name: str, tolerance: float, tmp_path: Path) -> None:
    rows, columns = np.mgrid[:90, :120]
    inside = np.hypot(rows - 44, (columns - 60) / 1.3) < 36
    mask = (inside & ~(np.hypot(rows - 40, columns - 50) < 14)).astype(np.uint8)
    files = {"x.png": mask}
    fine = exported(files, tmp_path / "fine", name)
    coarse = exported(files, tmp_path / "coarse", name, tolerance=tolerance)
    assert size(coarse) < 0.7 * size(fine)
    imported(coarse, tmp_path / "set", name, classes=fine / "classes.txt")
    found = read_masks(tmp_path / "set")["x"]
    wrong = (found != mask) & (found != 255)
    assert (found == 255).mean() < 0.1
    for row, column in np.argwhere(found != mask):  # a pixel of the other class is near
        reach = int(np.ceil(tolerance)) + 1
        near = mask[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        assert near.min() != near.max()
    assert wrong.sum() < inside.sum() / 10


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_confidence_is_where_formats_have_a_place_for_it(tmp_path: Path) -> None:
    mask = np.zeros((6, 8), dtype=np.uint8)
    mask[:, 4:] = 1
    items = annotated({"x.png": mask})
    confidence = items[0].confidence
    assert confidence is not None
    confidence[:, 4:] = 0.5
    found = {}
    for name in ("coco", "label-studio", "labelme", "supervisely"):
        export(items, tmp_path / name, names=NAMES, options=DraftOptions(name))
        (path,) = (path for path in (tmp_path / name).rglob("*.json") if path.name != "meta.json")
        found[name] = json.loads(path.read_text())
    assert [each["score"] for each in found["coco"]["annotations"]] == [0.75, 0.5]
    prediction = found["label-studio"][0]["predictions"][0]
    assert prediction["score"] == 0.625
    assert [each["score"] for each in prediction["result"]] == [0.75, 0.5]
    assert [each["description"] for each in found["labelme"]["shapes"]] == ["confidence 0.75", "confidence 0.5"]
    values = [each["tags"][0] for each in found["supervisely"]["objects"]]
    assert values == [{"name": "confidence", "value": 0.75}, {"name": "confidence", "value": 0.5}]


def test_the_legend_of_colours_is_one_for_data_mask_values(scene: np.ndarray, tmp_path: Path) -> None:
    tool = exported({"x.png": scene}, tmp_path / "tool", "colour-png")
    values = mask_values("classes.csv", (tool,))
    assert values.classes == NAMES
    assert len(values.values) == 4


def test_the_pascal_voc_reader_reads_voc(scene: np.ndarray, tmp_path: Path) -> None:
    items = annotated({"a/x.png": scene, "b/y.jpg": scene.T.copy()}, tmp_path / "images")
    export(items, tmp_path / "tool", names=NAMES, options=DraftOptions("voc"))
    lists = tmp_path / "tool" / "ImageSets" / "Segmentation"
    assert (lists / "train.txt").read_text().split() == ["x", "y"]
    (lists / "train.txt").write_text("x\n")
    (lists / "val.txt").write_text("y\n")
    source = READERS["pascal_voc"](root=tmp_path / "tool")
    assert source.classes == NAMES
    (sample,) = source.labeled
    np.testing.assert_array_equal(sample.mask().numpy(), scene)


@pytest.mark.parametrize(("name", "shapes"), KINDS, ids=str)
def test_an_import_is_a_folder_to_train_on(name: str, shapes: str | None, scene: np.ndarray, tmp_path: Path) -> None:
    items = annotated({"train/a.png": scene, "train/b.png": scene[::-1].copy()}, tmp_path / "set" / "images")
    export(items, tmp_path / "tool", names=NAMES, options=DraftOptions(name, shapes))
    images = tmp_path / "set" / "images"
    imported(tmp_path / "tool", tmp_path / "set", name, images=images, classes=tmp_path / "tool" / "classes.txt")
    source = READERS["folder"](root=tmp_path / "set")
    assert source.classes == NAMES
    assert [sample.name for sample in source.labeled] == ["train/a", "train/b"]
    np.testing.assert_array_equal(source.labeled[0].mask().numpy(), scene)
