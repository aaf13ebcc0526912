import pytest

from u2pl.data.readers.cityscapes import CLASSES, LABEL_ID_LOOKUP, PALETTE, cityscapes
from u2pl.errors import InputError


def names(samples) -> list[str]:
    return [sample.name for sample in samples]


@pytest.fixture
def root(tmp_path, write_image, write_mask):
    """Two cities: train ids for ulm, label ids only for bonn, no mask for ulm_3."""
    masks = {
        "train/ulm/ulm_1": ("labelTrainIds", (0, 18, 255)),
        "train/ulm/ulm_2": ("labelTrainIds", (0, 5)),
        "train/ulm/ulm_3": None,
        "train/bonn/bonn_1": ("labelIds", (7, 33, 3, 255)),
        "val/jena/jena_1": ("labelIds", (7, 8)),
        "train_extra/kiel/kiel_1": None,
    }
    for seed, (name, mask) in enumerate(masks.items()):
        write_image(tmp_path / "leftImg8bit" / f"{name}_leftImg8bit.png", seed=seed)
        if mask is not None:
            write_mask(tmp_path / "gtFine" / f"{name}_gtFine_{mask[0]}.png", mask[1])
    return tmp_path


def test_defaults(root):
    source = cityscapes(root=root)
    assert source.classes == CLASSES
    assert len(source.classes) == len(source.palette) == 19
    assert names(source.labeled) == ["train/bonn/bonn_1", "train/ulm/ulm_1", "train/ulm/ulm_2"]
    assert names(source.unlabeled) == ["train/ulm/ulm_3"]
    assert names(source.val) == ["val/jena/jena_1"]


def test_label_ids_become_train_ids(root, write_mask):
    source = cityscapes(root=root)
    assert source.labeled[0].mask()[0].unique().tolist() == [0, 18, 255]
    assert source.labeled[1].mask()[0].unique().tolist() == [0, 18, 255]
    assert source.val[0].mask_values() == {0, 1}
    write_mask(source.labeled[0].mask_path, (7, 40))
    with pytest.raises(InputError, match="holds the value 40"):
        source.labeled[0].mask()


def test_train_ids_are_preferred(root, write_mask):
    write_mask(root / "gtFine/train/ulm/ulm_1_gtFine_labelIds.png", (7, 8))
    assert cityscapes(root=root).labeled[1].mask_values() == {0, 18}


def test_lookup_names_every_class_once():
    pairs = {7: "road", 8: "sidewalk", 17: "pole", 19: "traffic light", 24: "person", 26: "car", 33: "bicycle"}
    assert all(CLASSES[LABEL_ID_LOOKUP[value]] == name for value, name in pairs.items())
    assert sorted(entry for entry in LABEL_ID_LOOKUP if 0 <= entry < 255) == list(range(19))
    assert all(LABEL_ID_LOOKUP[value] == 255 for value in (0, 1, 9, 10, 14, 16, 18, 29, 30, 255))
    assert PALETTE[CLASSES.index("car")] == (0, 0, 142)


def test_count_and_split_files(root):
    drawn = cityscapes(root=root, labeled=2)
    assert names(drawn.labeled) != []
    assert len(drawn.labeled) + len(drawn.unlabeled) == 4
    (root / "few.txt").write_text("leftImg8bit/train/ulm/ulm_2_leftImg8bit.png\n")
    (root / "pool.txt").write_text("kiel_1\nleftImg8bit/train/ulm/ulm_3_leftImg8bit.png gtFine/train/ulm/x.png\n")
    source = cityscapes(root=root, labeled="few.txt", unlabeled="pool.txt")
    assert names(source.labeled) == ["train/ulm/ulm_2"]
    assert names(source.unlabeled) == ["train_extra/kiel/kiel_1", "train/ulm/ulm_3"]
    (root / "v.txt").write_text("bonn_1")
    held = cityscapes(root=root, labeled="few.txt", val="v.txt")
    assert names(held.val) == ["train/bonn/bonn_1"]
    assert names(held.unlabeled) == ["train/ulm/ulm_1", "train/ulm/ulm_3"]


def test_errors_name_the_file(root, tmp_path):
    (root / "few.txt").write_text("leftImg8bit/train/ulm/ulm_9_leftImg8bit.png\n")
    with pytest.raises(InputError, match=r"few\.txt lists 1 image \(leftImg8bit/train/ulm/ulm_9_leftImg8bit\.png\)"):
        cityscapes(root=root, labeled="few.txt")
    (root / "few.txt").write_text("jena_1\n")
    with pytest.raises(InputError, match=r"val/jena/jena_1.* in both labeled and val"):
        cityscapes(root=root, labeled="few.txt")
    with pytest.raises(InputError, match=r"gtFine.* holds no <set>/<city>/\*_leftImg8bit\.png"):
        cityscapes(root=root / "gtFine")


def test_sample_of_the_real_set(real_data):
    source = cityscapes(root=real_data / "cityscapes_sample", scale=0.25)
    assert (len(source.labeled), len(source.val)) == (2, 1)
    sample = source.labeled[0]
    assert sample.image().shape == (3, 256, 512)
    assert sample.mask().shape == (256, 512)
    assert {0, 2, 10} <= sample.mask_values() <= set(range(19))  # road, building, sky


def test_some_classes_whatever_the_ids_of_the_file(root):
    source = cityscapes(root=root, classes=["bicycle", "road"])
    assert (source.classes, source.palette) == (("bicycle", "road"), ((119, 11, 32), (128, 64, 128)))
    assert [sample.mask_values() for sample in source.labeled] == [{0, 1}, {0, 1}, {1}]  # label ids, then train ids
    assert source.lookup is not None
    assert [source.lookup[value] for value in (0, 18, 5, 19, 255)] == [1, 0, 255, -1, 255]


def test_without_labels_no_mask_is_read(root):
    (root / "gtFine/train/ulm/ulm_1_gtFine_labelTrainIds.png").write_bytes(b"")
    source = cityscapes(root=root, labeled=False)
    assert (source.labeled, len(source.unlabeled), names(source.val)) == ([], 4, ["val/jena/jena_1"])
