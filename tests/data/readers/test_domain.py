from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from u2pl.data.files import FileSample, cached
from u2pl.data.inspection import inspect, verify
from u2pl.data.readers.cityscapes import CLASSES as CITYSCAPES
from u2pl.data.readers.cityscapes import cityscapes
from u2pl.data.readers.domain import domain
from u2pl.data.readers.folder import folder
from u2pl.data.readers.synthia import CLASSES as SYNTHIA
from u2pl.data.scenes.reader import scenes
from u2pl.data.source import DataSource
from u2pl.errors import InputError

SKY, TREE, CAR = "sky", "tree", "car"


@pytest.fixture
def write(tmp_path, write_image, write_mask):
    """``write("a", {"train/1": (0, 1)}, "sky tree")``: a folder of images, masks and names."""

    def make(name, contents, classes):
        root = tmp_path / name
        for seed, (stem, values) in enumerate(contents.items()):
            write_image(root / "images" / f"{stem}.png", seed=seed)
            if values is not None:
                write_mask(root / "masks" / f"{stem}.png", values)
        (root / "classes.txt").write_text("\n".join(classes.split()))
        return root

    return make


@pytest.fixture
def source(write):
    return folder(root=write("a", {"train/1": (0, 1, 2), "train/2": (2, 255), "train/3": None}, "sky tree car"))


@pytest.fixture
def target(write):
    """Its training masks are no png: whoever reads one fails."""
    root = write("b", {"train/1": (0,), "train/2": None, "val/1": (0, 1), "val/2": (2, 3)}, "car road sky tree")
    (root / "masks" / "train" / "1.png").write_bytes(b"not to be read")
    return folder(root=root, val="val", labeled=False)


def names(samples) -> list[str]:
    return [sample.name for sample in samples]


def test_labels_of_one_images_of_the_other(source, target):
    both = domain(source=source, target=target)
    assert names(both.labeled) == ["source/train/1", "source/train/2"]
    assert names(both.unlabeled) == ["target/train/1", "target/train/2"]
    assert names(both.val) == ["target/val/1", "target/val/2"]
    assert [sample.has_mask for sample in both.unlabeled] == [True, False]
    assert both.classes == (CAR, SKY, TREE)  # the target's order, without road, which no label shows
    assert [note for note in both.notes if "road" in note]
    for sample, of in zip(both.labeled, source.labeled, strict=True):
        assert torch.equal(sample.image(), of.image())
        assert sample.image_size() == (12, 16)
    verify(both, semi_supervised=True, thorough=True)
    verify(cached(both), semi_supervised=True, thorough=False)


def meaning(sample, classes) -> list[str | None]:
    return [None if value == 255 else classes[value] for value in sample.mask().flatten().tolist()]


def test_masks_keep_their_meaning(source, target):
    """Pixel by pixel, by the names of the classes."""
    both = domain(source=source, target=target)
    for sample, of in zip(both.labeled, source.labeled, strict=True):
        assert meaning(sample, both.classes) == meaning(of, source.classes)
    for sample, of in zip(both.val, target.val, strict=True):
        kept = [name if name != "road" else None for name in meaning(of, target.classes)]
        assert meaning(sample, both.classes) == kept


def test_a_mapping_decides(source, target):
    mapping = {SKY: "road", TREE: "road"}
    both = domain(source=source, target=target, mapping=mapping)
    assert both.classes == target.classes  # what it does not reach stays
    for sample, of in zip(both.labeled, source.labeled, strict=True):
        assert meaning(sample, both.classes) == [mapping.get(name) for name in meaning(of, source.classes)]
    for sample, of in zip(both.val, target.val, strict=True):
        assert meaning(sample, both.classes) == meaning(of, target.classes)
    assert inspect(both, semi_supervised=True).absent == (CAR, SKY, TREE)


def test_the_same_classes_change_nothing(source, write):
    other = folder(root=write("c", {"train/9": None, "val/8": (0, 2)}, "sky tree car"), val="val", labeled=False)
    both = domain(source=source, target=other)
    assert both.classes == source.classes
    assert both.notes == ()
    assert [sample.lookup for sample in (*both.labeled, *both.val)] == [None] * 3


def test_different_classes_need_a_mapping(source, write):
    other = folder(root=write("c", {"train/9": None, "val/8": (0, 1)}, "sky truck"), val="val", labeled=False)
    with pytest.raises(
        InputError, match=r"tree, car only in the source, truck only in the target; give data\.source\.m"
    ):
        domain(source=source, target=other)


def test_upper_bound_has_the_same_images_with_the_targets_labels(source, write):
    contents = {"train/1": (3, 1), "train/2": None, "train/3": (0, 2), "val/1": (0, 1)}
    root = write("b", contents, "car road sky tree")
    hidden, known = (folder(root=root, val="val", labeled=labeled) for labeled in (False, None))
    both, best = domain(source=source, target=hidden), domain(source=source, target=known, upper_bound=True)
    assert names(best.labeled) == ["target/train/1", "target/train/3"]
    assert sorted(names(best.unlabeled)) == names(both.unlabeled)
    assert (best.val, best.classes) == (both.val, both.classes)
    assert set(meaning(best.labeled[0], best.classes)) == {TREE, None}


def test_labels_of_the_target_follow_those_of_the_source(source, write):
    """Its other images stay unlabeled, and classes are those of a run without such labels."""
    contents = {"train/1": (3, 1), "train/2": None, "train/3": (0, 2), "val/1": (0, 1)}
    root = write("b", contents, "car road sky tree")
    hidden, known = (folder(root=root, val="val", labeled=labeled) for labeled in (False, 1))
    plain, both = domain(source=source, target=hidden), domain(source=source, target=known)
    (own,) = names(known.labeled)
    assert names(both.labeled) == [*names(plain.labeled), f"target/{own}"]
    assert both.target_labeled == 1
    assert plain.target_labeled == 0
    assert names(both.unlabeled) == [name for name in names(plain.unlabeled) if name != f"target/{own}"]
    assert (both.val, both.classes) == (plain.val, plain.classes)
    assert None in meaning(both.labeled[-1], both.classes) or own == "train/3"  # road is ignored
    assert both.notes[0] == f"{plain.notes[0]}; data.source.mapping keeps them, as labels of the target may show them"
    mapped = domain(source=source, target=known, mapping={SKY: SKY})
    assert mapped.classes == known.classes
    assert meaning(mapped.labeled[-1], mapped.classes) == meaning(known.labeled[0], known.classes)
    shown = {SKY, *(name for name in meaning(mapped.labeled[-1], mapped.classes) if name)}
    assert {*inspect(mapped, semi_supervised=True).absent} == {*mapped.classes} - shown
    assert SKY not in meaning(mapped.labeled[-1], mapped.classes) or own == "train/3"
    best = domain(source=source, target=known, upper_bound=True)
    assert (names(best.labeled), best.target_labeled) == ([f"target/{own}"], 0)
    assert len(best.unlabeled) == 3
    assert cached(both).target_labeled == 1
    told = inspect(both, semi_supervised=True)
    assert (told.labeled, told.target.number, told.unlabeled) == (2, 1, 2)
    pixels = known.labeled[0].mask()
    kept = {name: int((pixels == index).sum()) for index, name in enumerate(known.classes) if name in both.classes}
    assert told.target.shares == pytest.approx({name: kept[name] / sum(kept.values()) for name in both.classes})
    assert told.target.images == {name: int(kept[name] > 0) for name in both.classes}
    assert told.target.ignored == pytest.approx((pixels == 1).float().mean().item())
    assert inspect(plain, semi_supervised=True).labeled_shares == told.labeled_shares
    assert inspect(plain, semi_supervised=True).target is None


def test_a_target_that_is_labeled_whole_leaves_nothing_to_adapt_to(source, write):
    root = write("b", {"train/1": (3, 1), "train/2": (0, 2), "val/1": (0, 1)}, "car road sky tree")
    both = domain(source=source, target=folder(root=root, val="val"))
    with pytest.raises(InputError, match=r"no unlabeled image; lower data\.target\.labeled, add images of the target"):
        verify(both, semi_supervised=True, thorough=True)
    verify(both, semi_supervised=False, thorough=True)


def test_raw_values_of_the_target_are_known(write, source):
    """``lookup`` says what a mask outside the run means, as the target's reader does."""
    root = write("b", {"train/1": None, "val/1": (0, 1, 2, 3)}, "car road sky tree")
    target = folder(root=root, val="val", labeled=False, classes=["tree", "road", "sky"])
    plain = domain(source=source, target=target, mapping={SKY: "sky"})
    assert plain.lookup == target.lookup
    small = replace(source, classes=("tree", "sky"), labeled=[source.labeled[0]])
    both = domain(source=small, target=target)
    raw = np.array(Image.open(root / "masks" / "val" / "1.png"))
    value_of = {"car": None, "road": None, "sky": "sky", "tree": "tree"}
    for value, name in enumerate(("car", "road", "sky", "tree")):
        index = both.lookup[value]
        assert (None if index == 255 else both.classes[index]) == value_of[name]
    assert torch.equal(both.val[0].mask(), torch.tensor(both.lookup)[torch.tensor(raw.astype(int))].to(torch.uint8))
    assert (both.lookup[4], both.lookup[255]) == (-1, 255)


def test_colours_are_the_targets():
    target = scenes(train=2, val=1, labeled=False)
    source = DataSource(("car", "sky"), [FileSample("x", None, None, 2)], [], [])  # type: ignore[arg-type]
    both = domain(source=source, target=target)
    assert both.classes == ("sky", "car")
    assert both.palette == (target.palette[0], target.palette[target.classes.index("car")])


def test_cityscapes_on_the_classes_of_synthia(tmp_path, write_image, write_mask):
    for name, kind, values in (("train/a/a_1", "labelIds", ()), ("val/b/b_1", "labelIds", (7, 22, 26, 33, 0))):
        write_image(tmp_path / "leftImg8bit" / f"{name}_leftImg8bit.png")
        if values:
            write_mask(tmp_path / "gtFine" / f"{name}_gtFine_{kind}.png", values)
    target = cityscapes(root=tmp_path, labeled=False)
    labels = [FileSample("x", tmp_path / "x.png", tmp_path / "x.png", 16)]
    both = domain(source=DataSource(SYNTHIA, labels, [], []), target=target)
    assert both.classes == SYNTHIA
    assert len(both.palette) == 16
    assert both.palette[SYNTHIA.index("car")] == (0, 0, 142)
    shown = {None if value == 255 else SYNTHIA[value] for value in both.val[0].mask()[0].tolist()}
    assert shown == {"road", None, "car", "bicycle"}  # terrain is ignored
    assert both.labeled[0].lookup is None
    fewer = tuple(name for name in SYNTHIA if name not in ("wall", "fence", "pole"))
    assert domain(source=DataSource(fewer, labels, [], []), target=target).classes == fewer
    with pytest.raises(InputError, match="terrain, truck, train only in the source"):
        domain(
            source=DataSource(CITYSCAPES, labels, [], []),
            target=cityscapes(root=tmp_path, classes=SYNTHIA, labeled=False),
        )
    everything = domain(source=DataSource(CITYSCAPES, labels, [], []), target=target)
    assert (everything.classes, everything.notes) == (CITYSCAPES, ())


def test_what_cannot_be(source, target, write):
    root = write("c", {"val/1": (0, 2)}, "sky tree car")
    with pytest.raises(InputError, match=r"data\.target: has no training image"):
        domain(source=source, target=folder(root=root, val="val", labeled=False))
    both = write("d", {"train/1": (0,), "val/1": (0, 1, 2)}, "sky tree car")
    everything, held = folder(root=both), folder(root=both, val="val", labeled=False)
    with pytest.raises(InputError, match=r"1 of its labeled images, such as val/1, are in the target's validation"):
        domain(source=everything, target=held)
    with pytest.raises(InputError, match="such as val/1, are in the target"):
        domain(source=folder(root=both.parent / ".." / both.parent.name / "d"), target=held)
    domain(source=folder(root=both, val="val"), target=held)
    day = scenes(train=3, val=2)
    with pytest.raises(InputError, match="such as val_"):
        domain(source=replace(day, labeled=day.val), target=scenes(train=3, val=2, labeled=False))


def test_nothing_is_labeled_where_nothing_is_to_be(target):
    assert (target.labeled, names(target.unlabeled)) == ([], ["train/1", "train/2"])
    night = scenes(train=5, labeled=False)
    assert (len(night.labeled), len(night.unlabeled)) == (0, 5)


def test_a_folder_without_labels_must_name_its_classes(target, write):
    root = write("e", {"train/1": (0, 1)}, "sky tree")
    (root / "classes.txt").unlink()
    with pytest.raises(InputError, match=r"classes\.txt is missing; no training mask is read"):
        folder(root=root, labeled=False)


def test_readers_without_labels(real_data):
    from u2pl.data.readers.pascal_voc import pascal_voc

    voc = pascal_voc(root=real_data / "voc_animals", labeled=False)
    labeled = pascal_voc(root=real_data / "voc_animals")
    assert voc.labeled == []
    assert set(names(voc.unlabeled)) == {*names(labeled.labeled), *names(labeled.unlabeled)}
    assert names(voc.val) == names(labeled.val)
    sample = cityscapes(root=real_data / "cityscapes_sample", labeled=False)
    assert (len(sample.labeled), len(sample.unlabeled), len(sample.val)) == (0, 2, 1)
