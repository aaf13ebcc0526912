import shutil

import pytest

from u2pl.data.readers.folder import folder
from u2pl.errors import InputError


def names(samples) -> list[str]:
    return [sample.name for sample in samples]


CONTENTS = {
    "train/a": (0, 1),
    "train/b": (0, 2),
    "train/deep/c": (0, 1),
    "train/d": None,
    "more/e": None,
    "val/f": (0, 1, 2),
}


def refused(*words: str, **arguments) -> None:
    with pytest.raises(InputError) as caught:
        folder(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_images_without_masks_are_unlabeled_and_val_is_held_out(write_folder):
    source = folder(root=write_folder(CONTENTS), val="val")
    assert source.classes == ("sky", "road", "car")
    assert names(source.labeled) == ["train/a", "train/b", "train/deep/c"]
    assert names(source.unlabeled) == ["more/e", "train/d"]
    assert names(source.val) == ["val/f"]
    assert source.notes == ()
    assert source.labeled[1].mask_values() == {0, 2}


def test_without_val_every_image_trains_and_a_note_says_so(write_folder):
    source = folder(root=write_folder(CONTENTS))
    assert "val/f" in names(source.labeled)
    assert source.val == []
    assert len(source.notes) == 1
    assert "its 1 images train" in source.notes[0]


def test_val_from_a_text_file(write_folder, tmp_path):
    root = write_folder(CONTENTS)
    (root / "held.txt").write_text("a\nval/f\n")
    source = folder(root=root, val="held.txt")
    assert names(source.val) == ["train/a", "val/f"]
    assert names(source.labeled) == ["train/b", "train/deep/c"]
    assert names(source.unlabeled) == ["more/e", "train/d"]
    assert folder(root=root, val=root / "held.txt") == source


def test_labeled_from_a_text_file(write_folder):
    root = write_folder(CONTENTS)
    (root / "few.txt").write_text("images/train/deep/c.png\n")
    source = folder(root=root, labeled="few.txt", val="val")
    assert names(source.labeled) == ["train/deep/c"]
    assert names(source.unlabeled) == ["more/e", "train/a", "train/b", "train/d"]


@pytest.mark.parametrize("labeled", [2, 2 / 3])
def test_count_and_fraction_draw_a_cover_and_leave_the_rest_unlabeled(write_folder, labeled):
    root = write_folder(CONTENTS)
    drawn = set()
    for seed in range(8):
        source = folder(root=root, labeled=labeled, val="val", seed=seed)
        assert len(source.labeled) == 2
        assert "train/b" in names(source.labeled)  # the only one with a car
        everything = names(source.labeled) + names(source.unlabeled)
        assert sorted(everything) == sorted(set(CONTENTS) - {"val/f"})
        drawn.add(tuple(names(source.labeled)))
    assert len(drawn) == 2


def test_suffixes_in_any_case_and_hidden_files(write_folder, write_image):
    root = write_folder({"a": (0, 1)})
    for name in ("b.JPG", "c.jpeg", "d.PNG", "e.tif", "f.TIFF", "g.bmp", "h.webp", "._a.jpg"):
        write_image(root / "images" / name)
    (root / "images" / "notes.txt").write_text("not an image")
    assert names(folder(root=root).unlabeled) == list("bcdefgh")


def test_classes_are_inferred_from_the_masks(write_folder):
    root = write_folder({"a": (0, 1, 255), "b": (0, 4)}, classes=())
    source = folder(root=root)
    assert source.classes == ("class_0", "class_1", "class_2", "class_3", "class_4")
    assert source.labeled[1].mask_values() == {0, 4}


def test_classes_can_be_kept_by_name(write_folder):
    source = folder(root=write_folder({"a": (0, 1, 2)}), classes=("car", "sky"))
    assert source.classes == ("car", "sky")
    assert source.labeled[0].mask()[0].unique().tolist() == [0, 1, 255]
    assert source.labeled[0].mask()[0, 0] == 1


def test_scale(write_folder):
    sample = folder(root=write_folder({"a": (0, 1)}), scale=0.5).labeled[0]
    assert sample.image().shape == (3, 6, 8)
    assert sample.mask().shape == (6, 8)


def test_notes_name_what_is_left_aside(write_folder, write_image, write_mask):
    root = write_folder(CONTENTS | {"val/g": None, "test/h": (0, 1)})
    write_mask(root / "masks" / "train" / "orphan.png")
    source = folder(root=root, val="val")
    notes = "\n".join(source.notes)
    assert len(source.notes) == 3
    assert "1 of 6 masks" in notes
    assert "belong to no image (train/orphan.png) and are not used" in notes
    assert "g.png has no mask" in notes
    assert "test: its 1 images train" in notes
    assert "val/g" not in names(source.labeled) + names(source.unlabeled) + names(source.val)


def test_missing_folder(tmp_path):
    refused(str(tmp_path / "nowhere"), root=tmp_path / "nowhere")


def test_no_images(tmp_path):
    (tmp_path / "images").mkdir()
    refused(str(tmp_path / "images"), "no image", root=tmp_path)


@pytest.mark.parametrize("classes", [(), ("sky",)])
def test_no_labeled_image(write_folder, classes):
    root = write_folder({"a": None}, classes=classes)
    refused(str(root), "no labeled image", root=root)


def test_listed_stem_is_absent(write_folder):
    root = write_folder(CONTENTS)
    (root / "few.txt").write_text("a\nzebra\n")
    refused("few.txt", "1 image (zebra)", root=root, labeled="few.txt")


def test_stem_in_labeled_and_val(write_folder):
    root = write_folder(CONTENTS)
    (root / "few.txt").write_text("a\nf\n")
    refused("val/f", "labeled", root=root, labeled="few.txt", val="val")


def test_two_images_of_one_stem(write_folder, write_image):
    root = write_folder(CONTENTS)
    write_image(root / "images" / "train" / "a.jpg")
    refused("a.png", "a.jpg", root=root, val="val")


def test_more_labeled_than_there_are(write_folder):
    root = write_folder(CONTENTS)
    refused("labeled: 4", "only 3 in ", "have masks", root=root, labeled=4, val="val")


def test_val_that_is_nothing(write_folder):
    refused("val: validation", "more, train, val", root=write_folder(CONTENTS), val="validation")


def test_val_without_masks(write_folder):
    root = write_folder(CONTENTS)
    shutil.rmtree(root / "masks" / "val")
    refused("val: ", "no image with a mask", root=root, val="val")


def test_camvid(real_data):
    source = folder(root=real_data / "camvid", val="val")
    assert (len(source.labeled), len(source.unlabeled), len(source.val)) == (367, 0, 101)
    assert len(source.classes) == 11
    few = folder(root=real_data / "camvid", val="val", labeled=46)
    assert (len(few.labeled), len(few.unlabeled), len(few.val)) == (46, 321, 101)
    assert set().union(*(sample.mask_values() for sample in few.labeled)) == set(range(11))
    assert names(few.labeled) == names(folder(root=real_data / "camvid", val="val", labeled=0.125).labeled)
    assert few.labeled[0].image().shape == (3, 360, 480)
