from dataclasses import replace
from pathlib import Path

import pytest
import torch

from u2pl.data.batches import Batches
from u2pl.data.files import cached
from u2pl.data.inspection import inspect, verify
from u2pl.data.readers.folder import folder
from u2pl.data.readers.pascal_voc import pascal_voc
from u2pl.data.scenes.reader import scenes
from u2pl.data.transforms import LabeledTransform, UnlabeledTransform
from u2pl.errors import InputError

CLASSES = ("background", "cat", "dog", "car")
CONTENTS = {"train/a": (0, 1), "train/b": (0, 2), "train/c": None, "train/d": None, "val/v": (0, 1)}
CSV = "image,tags\ntrain/a,cat\ntrain/b,dog;car\ntrain/c,cat;dog\nd,car\nval/v,cat\n"


@pytest.fixture
def root(write_folder) -> Path:
    return write_folder(CONTENTS, classes=CLASSES)


def tags_of(source) -> dict[str, object]:
    return {sample.name: None if sample.tags is None else set(sample.tags) for sample in source.unlabeled}


def refused(*words: str, reader=folder, **arguments) -> None:
    with pytest.raises(InputError) as caught:
        reader(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


EXPECTED = {"train/a": {1}, "train/b": {2, 3}, "train/c": {1, 2}, "train/d": {3}}


@pytest.mark.parametrize(
    "text",
    [
        CSV,
        "\ufeff" + CSV,
        CSV.replace("\n", "\r\n"),
        CSV.replace(";", "|").replace(",", ";").replace("|", ","),  # a spreadsheet's other separator
        CSV.replace(",", ";"),
        CSV.replace(",", "\t"),
        CSV.removeprefix("image,tags\n"),
        CSV.replace("dog;car", '" dog ; car "').replace("image,tags", "Image, Tags") + "\n\n",
        CSV.replace("train/b,dog;car", "train/b,dog\ntrain/b,car"),  # a row for each object
        CSV.replace("train/b,dog;car", "images/train/b.png,dog,car"),  # a column for each
        CSV.replace("train/a,cat", "train/a,cat;background"),
    ],
)
def test_csv_files_as_people_write_them(root, text):
    (root / "tags.csv").write_bytes(text.encode())
    expected = EXPECTED | ({"train/a": {0, 1}} if "background" in text else {})
    assert tags_of(folder(root=root, val="val", labeled=0, tags="tags.csv")) == expected
    assert tags_of(folder(root=root, val="val", labeled=0, tags=root / "tags.csv")) == expected


def test_only_unlabeled_images_carry_tags_and_none_need_be_labeled(root):
    (root / "tags.csv").write_text(CSV)
    source = folder(root=root, val="val", tags="tags.csv")  # both masks are labels
    assert [sample.name for sample in source.labeled] == ["train/a", "train/b"]
    assert tags_of(source) == {"train/c": {1, 2}, "train/d": {3}}
    assert all(sample.tags is None for sample in (*source.labeled, *source.val))
    assert tags_of(cached(source)) == tags_of(source)
    assert tags_of(folder(root=root, val="val")) == {"train/c": None, "train/d": None}
    for path in (root / "masks" / "train").iterdir():
        path.unlink()
    bare = folder(root=root, tags="tags.csv", val="val")
    assert bare.labeled == []
    assert tags_of(bare) == EXPECTED
    refused("no labeled image", root=root, val="val")
    refused("labeled: 0 images requested", "or give data.tags", root=folder_with_masks(root), val="val", labeled=0)


def folder_with_masks(root: Path) -> Path:
    (root / "masks" / "train").mkdir(exist_ok=True)
    (root / "masks" / "train" / "a.png").write_bytes((root / "masks" / "val" / "v.png").read_bytes())
    return root


def test_classes_left_out_are_no_tags_and_images_of_them_alone_are_not_used(root):
    (root / "tags.csv").write_text(CSV)
    source = folder(root=root, val="val", labeled=0, tags="tags.csv", classes=["background", "dog", "cat"])
    assert tags_of(source) == {"train/a": {2}, "train/b": {1}, "train/c": {1, 2}}
    assert source.notes == ("1 image (train/d) tagged only with classes that data.classes leaves out; not used",)


def test_a_class_that_is_not_known_is_refused_with_the_nearest(root):
    for wrong, words in (
        ("caar", "did you mean car?"),
        ("Dog", "did you mean dog?"),
        ("zebra", "known: background, cat"),
    ):
        (root / "tags.csv").write_text(CSV.replace("d,car", f"d,{wrong}"))
        refused("data.tags", "tags.csv", "train/d", repr(wrong), words, root=root, labeled=0, tags="tags.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("is empty",)),
        ("image,tags\n\n", ("is empty",)),
        (CSV + "gone,cat\nlost,dog\n", ("rows for 2 images (gone, lost) not found", "correct them")),
        ("image,tags\na,\xff", ("cannot be read", "UTF-8")),
    ],
)
def test_bad_csv_files(root, text, words):
    (root / "tags.csv").write_bytes(text.encode("latin-1"))
    refused("data.tags", "tags.csv", *words, root=root, labeled=0, tags="tags.csv")


def test_a_missing_file_or_folder(root):
    refused("data.tags", "there is no", "mine.csv", "csv with the columns", root=root, tags="mine.csv")
    refused("data.tags", "Annotations", root=root, tags="xml")


def test_two_images_of_one_bare_name_are_refused(write_folder):
    root = write_folder({"x/a": (0, 1), "y/a": None, "y/b": None}, classes=CLASSES)
    (root / "tags.csv").write_text("image,tags\na,cat\n")
    refused("tags.csv: a is ambiguous (x/a, y/a)", root=root, labeled=0, tags="tags.csv")


def test_tags_of_masks(root):
    source = folder(root=root, val="val", labeled=0, tags="masks")
    assert tags_of(source) == {"train/a": {0, 1}, "train/b": {0, 2}, "train/c": None, "train/d": None}


@pytest.fixture
def devkit(tmp_path, write_image, write_mask) -> Path:
    home = tmp_path / "VOC2012"
    for seed, name in enumerate(("p", "q", "r", "v")):
        write_image(home / "JPEGImages" / f"{name}.jpg", seed=seed)
    for name in ("p", "v"):
        write_mask(home / "SegmentationClass" / f"{name}.png", (0, 8, 255))
    lists = home / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for key, ids in {"train": "p", "val": "v", "unlabeled": "q\nr"}.items():
        (lists / f"{key}.txt").write_text(ids)
    annotate(home / "Annotations" / "p.xml", "cat", "dog", "cat")
    annotate(home / "Annotations" / "q.xml", "person")
    annotate(home / "Annotations" / "r.xml")
    return home


def annotate(path: Path, *names: str) -> None:
    path.parent.mkdir(exist_ok=True)
    objects = "".join(f"<object><name>{name}</name><part><name>head</name></part></object>" for name in names)
    path.write_text(f"<annotation><filename>x</filename>{objects}</annotation>")


def test_annotations_of_voc(devkit, tmp_path):
    source = pascal_voc(root=devkit, labeled=0, tags="xml")
    assert source.labeled == []
    assert tags_of(source) == {"p": {8, 12}, "q": {15}, "r": None}
    (devkit / "Annotations").rename(tmp_path / "boxes")
    assert pascal_voc(root=devkit, labeled=0, tags=tmp_path / "boxes") == source
    kept = pascal_voc(root=devkit, labeled=0, tags=tmp_path / "boxes", classes=["background", "dog"])
    assert tags_of(kept) == {"p": {1}, "r": None}
    assert len(kept.notes) == 1


def test_training_images_of_voc_need_no_mask(devkit):
    (devkit / "SegmentationClass" / "p.png").unlink()
    for labeled in (0, None):
        source = pascal_voc(root=devkit, labeled=labeled, tags="xml")
        assert (source.labeled, list(tags_of(source))) == ([], ["p", "q", "r"])
    refused("train.txt", "without a mask", reader=pascal_voc, root=devkit)


def test_damaged_annotations(devkit):
    (devkit / "Annotations" / "q.xml").write_text("<annotation><object>")
    refused("q.xml cannot be read", reader=pascal_voc, root=devkit, labeled=0, tags="xml")
    annotate(devkit / "Annotations" / "q.xml", "hose")
    refused("tags q with 'hose'", "did you mean horse?", reader=pascal_voc, root=devkit, labeled=0, tags="xml")


def test_scenes_are_tagged_by_what_they_show():
    source = scenes(labeled=0, train=3, val=1, height=32, width=48, tags="masks")
    assert source.labeled == ()
    assert tags_of(source) == {s.name: set(s.mask().unique().tolist()) - {255} for s in source.unlabeled}
    assert scenes(train=3, labeled=1, val=1).unlabeled[0].tags is None
    refused("data.tags: 'my.csv' is not possible", reader=scenes, tags="my.csv")
    refused("neither a count", reader=scenes, labeled=0)


def weak_batches(source, **options) -> Batches:
    return Batches(
        labeled=source.labeled,
        unlabeled=source.unlabeled,
        labeled_transform=LabeledTransform(crop_size=16),
        unlabeled_transform=UnlabeledTransform(crop_size=16),
        batch_size=3,
        steps=4,
        seed=0,
        tag_classes=4,
        **options,
    )


def test_batches_carry_tags_and_may_be_without_labels(root):
    (root / "tags.csv").write_text(CSV.replace("d,car\n", ""))
    source = folder(root=root, val="val", labeled=0, tags="tags.csv")
    drawn = weak_batches(source)
    for step in range(4):
        batch = drawn[step]
        assert (batch.image.shape, batch.image.dtype) == ((0, 3, 16, 16), torch.uint8)
        assert (batch.label.shape, batch.label.dtype) == ((0, 16, 16), torch.uint8)
        assert batch.tags.dtype == batch.tagged.dtype == torch.bool
        labeled, unlabeled = drawn.indices(step)
        assert labeled == []
        for index, row, known in zip(unlabeled, batch.tags.tolist(), batch.tagged.tolist(), strict=True):
            tags = source.unlabeled[index].tags
            assert known == (tags is not None)
            assert [c for c in range(4) if row[c]] == (sorted({0, *tags}) if known else [0, 1, 2, 3])
    assert not all(drawn[step].tagged.all() for step in range(4))


def test_tags_change_nothing_else_of_a_batch(root):
    (root / "tags.csv").write_text(CSV)
    source = folder(root=root, val="val", tags="tags.csv")
    plain = weak_batches(source)
    plain.tag_classes = None
    for step in range(4):
        batch, other = weak_batches(source)[step], plain[step]
        assert other.tags is other.tagged is None
        assert len(batch.image) == 3
        for name in ("image", "label", "unlabeled", "strong_jitter", "valid"):
            assert torch.equal(getattr(batch, name), getattr(other, name))


def test_no_mask_is_read(root, monkeypatch):
    (root / "tags.csv").write_text(CSV)
    source = folder(root=root, labeled=0, tags="tags.csv")
    monkeypatch.setattr("u2pl.data.files.FileSample.mask", lambda self: pytest.fail("a mask was read"))
    verify(source, semi_supervised=True, weak=True, thorough=True)
    for step in range(4):
        assert isinstance(weak_batches(source)[step].unlabeled, torch.Tensor)


def test_without_labels_and_tags_there_are_no_batches(root):
    source = folder(root=root, val="val")
    with pytest.raises(InputError, match="no labeled image"):
        weak_batches(replace(source, labeled=[], unlabeled=None))


def test_every_image_needs_a_tag_unless_there_are_masks(root):
    (root / "tags.csv").write_text(CSV.replace("d,car\n", ""))
    source = folder(root=root, val="val", labeled=0, tags="tags.csv")
    with pytest.raises(InputError, match=r"1 image \(train/d\) without a tag; add their classes to data.tags"):
        verify(source, semi_supervised=True, weak=True, thorough=True)
    with pytest.raises(InputError, match="there is no labeled image"):
        verify(source, semi_supervised=True, thorough=True)
    verify(folder(root=root, val="val", tags="tags.csv"), semi_supervised=True, weak=True, thorough=True)
    with pytest.raises(InputError, match=r"no unlabeled image has a tag; set data\.tags"):
        verify(folder(root=root, val="val"), semi_supervised=True, weak=True, thorough=True)
    with pytest.raises(InputError, match=r"no image to learn from by its tags; set data.labeled=0"):
        verify(replace(source, unlabeled=[]), semi_supervised=True, weak=True, thorough=True)


def test_inspection_counts_tagged_images(root):
    (root / "tags.csv").write_text(CSV.replace("car", "dog"))
    source = folder(root=root, val="val", labeled=0, tags="tags.csv")
    inspection = inspect(source, semi_supervised=True, weak=True)
    assert inspection.tagged == {"cat": 2, "dog": 3, "car": 0}
    assert inspection.errors == ()
    assert inspection.warnings == ("no image is tagged with 'car'; tag one",)
    assert inspect(source, semi_supervised=True).tagged == {}


def test_voc_animals(real_data):
    classes = ["background", "cat", "cow", "dog", "horse", "sheep", "person"]
    source = pascal_voc(root=real_data / "voc_animals", labeled=0, tags="tags.csv", classes=classes)
    assert (len(source.labeled), len(source.unlabeled)) == (0, 437 + 880)
    masked = pascal_voc(root=real_data / "voc_animals", labeled=0, tags="masks", classes=classes)
    same = [a.tags == b.tags - {0} for a, b in zip(source.unlabeled, masked.unlabeled, strict=True) if b.tags]
    assert len(same) == 437
    assert sum(same) >= 430
