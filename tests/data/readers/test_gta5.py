import pytest
from PIL import Image

from u2pl.data.readers.cityscapes import CLASSES, PALETTE
from u2pl.data.readers.gta5 import gta5
from u2pl.errors import InputError


def names(samples) -> list[str]:
    return [sample.name for sample in samples]


@pytest.fixture
def root(tmp_path, write_image, write_mask):
    """Four images; the labels of 3 have a palette, 4 has none."""
    masks = {"00001": (7, 33, 0), "00002": (26, 34), "00003": (8, 11)}
    for seed, name in enumerate([*masks, "00004"]):
        write_image(tmp_path / "images" / f"{name}.png", seed=seed)
    for name, values in masks.items():
        write_mask(tmp_path / "labels" / f"{name}.png", values)
    palette = Image.open(tmp_path / "labels" / "00003.png")
    palette.putpalette([value for index in range(256) for value in (index, 7, 255 - index)])
    palette.save(tmp_path / "labels" / "00003.png")
    return tmp_path


def test_every_image_with_labels_is_labeled(root):
    source = gta5(root=root)
    assert (source.classes, source.palette) == (CLASSES, PALETTE)
    assert names(source.labeled) == ["00001", "00002", "00003"]
    assert names(source.unlabeled) == ["00004"]
    assert names(source.val) == []


def test_label_ids_become_train_ids_palette_or_gray(root):
    source = gta5(root=root)
    shown = [{CLASSES[index] for index in sample.mask_values()} for sample in source.labeled]
    assert shown == [{"road", "bicycle"}, {"car"}, {"sidewalk", "building"}]  # 34, a licence plate, is ignored
    assert source.labeled[1].mask()[0].unique().tolist() == [13, 255]


def test_some_classes_in_an_order(root):
    source = gta5(root=root, classes=["car", "road"])
    assert (source.classes, source.palette) == (("car", "road"), ((0, 0, 142), (128, 64, 128)))
    assert [sample.mask_values() for sample in source.labeled] == [{1}, {0}, set()]
    with pytest.raises(InputError, match=r"'cat' is not a class"):
        gta5(root=root, classes=["cat"])


def test_splits(root):
    (root / "v.txt").write_text("images/00002.png\n")
    (root / "few.txt").write_text("00001\n")
    source = gta5(root=root, labeled="few.txt", val="v.txt")
    assert (names(source.labeled), names(source.unlabeled), names(source.val)) == (
        ["00001"],
        ["00003", "00004"],
        ["00002"],
    )
    assert len(gta5(root=root, labeled=2).labeled) == 2
    assert names(gta5(root=root, labeled=False).unlabeled) == ["00001", "00002", "00003", "00004"]
    assert names(gta5(root=root, labeled=2, unlabeled="few.txt").unlabeled) == ["00001"]


def test_what_is_wrong_names_the_file(root, write_mask):
    with pytest.raises(InputError, match=r"labels.images holds no image; correct the root"):
        gta5(root=root / "labels")
    write_mask(root / "labels" / "00001.png", (7, 35))
    with pytest.raises(InputError, match=r"00001\.png holds the value 35"):
        gta5(root=root).labeled[0].mask()
    write_mask(root / "labels" / "00001.png", (7,), size=(4, 4))
    with pytest.raises(InputError, match=r"00001\.png is 4x4 but its image"):
        gta5(root=root).labeled[0].mask()
