import numpy as np
import pytest
from PIL import Image

from u2pl.data.inspection import inspect
from u2pl.data.readers.pascal_voc import CLASSES, pascal_voc, voc_palette
from u2pl.errors import InputError

TRAIN, VAL, EXTRA = ("2007_01", "2007_02", "2007_03"), ("2008_01",), ("2009_01", "2009_02")


def names(samples) -> list[str]:
    return [sample.name for sample in samples]


@pytest.fixture
def devkit(tmp_path, write_image, write_mask):
    """VOCdevkit/VOC2012: three images to train with one class each, one to validate, two without masks."""
    home = tmp_path / "VOCdevkit" / "VOC2012"
    for seed, name in enumerate((*TRAIN, *VAL, *EXTRA)):
        write_image(home / "JPEGImages" / f"{name}.jpg", seed=seed)
    for index, name in enumerate((*TRAIN, *VAL)):
        write_mask(home / "SegmentationClass" / f"{name}.png", (0, 8 + index, 255))
    lists = home / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for key, ids in {"train": TRAIN, "val": VAL, "unlabeled": EXTRA}.items():
        (lists / f"{key}.txt").write_text("\n".join(ids) + "\n")
    return home


@pytest.mark.parametrize("up", [0, 1, 2])
def test_defaults_from_any_root(devkit, up):
    source = pascal_voc(root=(devkit, *devkit.parents)[up])
    assert source.classes == CLASSES
    assert len(source.classes) == 21
    assert names(source.labeled) == list(TRAIN)
    assert names(source.unlabeled) == list(EXTRA)
    assert names(source.val) == list(VAL)
    assert source.labeled[1].mask_values() == {0, 9}


def test_count_leaves_the_rest_of_train_unlabeled(devkit):
    source = pascal_voc(root=devkit, labeled=1, seed=3)
    assert len(source.labeled) == 1
    assert names(source.unlabeled) == [name for name in TRAIN if name not in names(source.labeled)] + list(EXTRA)
    assert len({names(pascal_voc(root=devkit, labeled=1 / 3, seed=seed).labeled)[0] for seed in range(12)}) == 3


def test_split_files(devkit):
    (devkit / "few.txt").write_text("JPEGImages/2007_02.jpg SegmentationClass/2007_02.png\n")
    (devkit / "pool.txt").write_text("2009_02\n2007_01")
    source = pascal_voc(root=devkit, labeled="few.txt", unlabeled="pool.txt", val="val.txt")
    assert names(source.labeled) == ["2007_02"]
    assert names(source.unlabeled) == ["2009_02", "2007_01"]
    assert names(source.val) == ["2008_01"]
    assert names(pascal_voc(root=devkit, labeled="few.txt").unlabeled) == ["2007_01", "2007_03", *EXTRA]


def test_train_list_is_not_needed_when_the_splits_are_given(devkit):
    lists = devkit / "ImageSets" / "Segmentation"
    (lists / "train.txt").rename(lists / "mine.txt")
    assert names(pascal_voc(root=devkit, labeled="mine.txt").unlabeled) == list(EXTRA)
    with pytest.raises(InputError, match=r"train\.txt"):
        pascal_voc(root=devkit)


def test_augmented_masks_are_preferred(devkit, write_mask):
    for name in (*TRAIN, *VAL):
        write_mask(devkit / "SegmentationClassAug" / f"{name}.png", (0, 20))
    assert pascal_voc(root=devkit).labeled[0].mask_values() == {0, 20}


def test_kept_classes_are_renumbered_in_the_given_order(devkit):
    source = pascal_voc(root=devkit, classes=("background", "chair", "cat"))
    assert source.classes == ("background", "chair", "cat")
    assert [sorted(sample.mask().unique().tolist()) for sample in source.labeled] == [
        [0, 2, 255],
        [0, 1, 255],
        [0, 255],
    ]
    assert source.palette == ((0, 0, 0), voc_palette()[9], voc_palette()[8])


def test_value_that_is_no_voc_class_is_refused_even_when_classes_are_kept(devkit, write_mask):
    write_mask(devkit / "SegmentationClass" / "2007_01.png", (0, 21))
    for classes in (None, ("background", "cat")):
        with pytest.raises(InputError, match=r"2007_01\.png holds the value 21, but there are 21 classes"):
            pascal_voc(root=devkit, classes=classes).labeled[0].mask()


def test_scale(devkit):
    assert pascal_voc(root=devkit, scale=0.5).val[0].image().shape == (3, 6, 8)


def test_palette():
    palette = voc_palette()
    assert len(palette) == 256
    assert palette[:3] == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert palette[15] == (192, 128, 128)
    assert palette[20] == (0, 64, 128)
    assert palette[255] == (224, 224, 192)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda home: (home / "JPEGImages").rename(home / "Images"), ["VOC2012", "JPEGImages"]),
        (lambda home: (home / "SegmentationClass/2007_02.png").unlink(), ["train.txt", "2007_02", "mask"]),
        (lambda home: (home / "JPEGImages/2009_01.jpg").unlink(), ["unlabeled.txt", "2009_01"]),
        (lambda home: (home / "ImageSets/Segmentation/val.txt").write_text("2007_01"), ["2007_01", "labeled and val"]),
        (lambda home: (home / "ImageSets/Segmentation/val.txt").unlink(), ["val.txt"]),
    ],
)
def test_errors_name_the_file(devkit, break_it, words):
    break_it(devkit)
    with pytest.raises(InputError) as caught:
        pascal_voc(root=devkit)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_voc_animals(real_data):
    kept = ("background", "cat", "cow", "dog", "horse", "sheep", "person")
    source = pascal_voc(root=real_data / "voc_animals", classes=kept, labeled=44)
    assert len(source.labeled) == 44
    assert len(source.unlabeled) == 437 - 44 + 880
    assert len(source.val) == len({sample.name for sample in source.val}) > 200
    assert set().union(*(sample.mask_values() for sample in source.labeled)) == set(range(7))
    sample = source.labeled[0]
    with Image.open(sample.mask_path) as file:
        raw = np.array(file)
    mask = sample.mask().numpy()
    for value in np.unique(raw):
        name = CLASSES[value] if value < 21 else None
        assert set(np.unique(mask[raw == value])) == {kept.index(name) if name in kept else 255}


def test_real_palette(real_data):
    path = next((real_data / "voc_animals" / "SegmentationClass").glob("*.png"))
    with Image.open(path) as file:
        stored = file.getpalette()
    assert [value for colour in voc_palette(21) for value in colour] == stored[:63]


LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad [paved]:128,0,0::\n\nspall:0,128,0::\n"


@pytest.fixture
def own(devkit):
    """Masks of the colours of LABELMAP, as a palette png, as RGB, and with a border."""
    colours = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [224, 224, 192]], np.uint8)
    for index, path in enumerate(sorted((devkit / "SegmentationClass").glob("*.png"))):
        labels = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16) % 4
        picture = Image.fromarray(colours[labels])
        if index == 0:
            picture = Image.fromarray(labels)
            picture.putpalette(colours.tobytes())
        picture.save(path)
    return devkit


def test_own_classes_by_their_colours(own):
    (own / "labelmap.txt").write_text(LABELMAP)
    source = pascal_voc(root=own)
    assert source.classes == ("background", "road [paved]", "spall")
    assert source.palette == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    for sample in source.labeled:
        assert sample.mask()[0, :4].tolist() == [0, 1, 2, 255]
    kept = pascal_voc(root=own, classes=["background", "spall"])
    assert kept.labeled[0].mask()[0, :4].tolist() == [0, 255, 1, 255]


def test_own_classes_by_their_numbers(devkit):
    (devkit / "classes.txt").write_text("\n".join(f"c{number}" for number in range(12)))
    assert pascal_voc(root=devkit).classes[9] == "c9"


def test_few_of_the_classes_of_voc_are_told_with_the_remedy(devkit):
    warnings = inspect(pascal_voc(root=devkit), semi_supervised=True).warnings
    assert any("17 of 21 classes are in no labeled mask" in each and "classes.txt" in each for each in warnings)
    named = pascal_voc(root=devkit, classes=["background", "aeroplane", "tvmonitor"])
    warnings = inspect(named, semi_supervised=True).warnings
    assert any("'tvmonitor' is in no labeled mask" in each for each in warnings)
    assert not any("classes.txt" in each for each in warnings)  # data.classes names them already


@pytest.mark.parametrize("line", ["crack", "crack:1,2", "crack:1,2,300::", ":1,2,3::", "crack:a,b,c"])
def test_lines_of_a_labelmap_that_name_no_colour(own, line):
    (own / "labelmap.txt").write_text(f"background:0,0,0::\n{line}\n")
    with pytest.raises(InputError, match=r"labelmap\.txt, line 2: .* is not name:r,g,b::"):
        pascal_voc(root=own)
