"""Which mask belongs to which image."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2pl.data.pairing import SAME_NAME, Masks
from u2pl.errors import InputError


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("images/train", "masks/train"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path / "images", tmp_path / "masks"


def pairs(folders: tuple[Path, Path], images: list[str], masks: list[str], pattern: str = SAME_NAME):
    """The mask of each image, by name, and the notes."""
    for folder, names in zip(folders, (images, masks), strict=True):
        for name in names:
            (folder / "train" / name).touch()
    paths = [folders[0] / "train" / name for name in images]
    found = Masks(folders[1], pattern)
    matched = {path.name: mask.name for path in paths if (mask := found.of(path, folders[0])) is not None}
    return matched, found.unused(paths, folders[0])


@pytest.mark.parametrize("ending", ["png", "PNG", "tif", "TIFF", "gif", "bmp"])
def test_masks_of_every_lossless_format(folders, ending):
    assert pairs(folders, ["a.jpg", "b.jpg"], [f"a.{ending}"]) == ({"a.jpg": f"a.{ending}"}, [])


@pytest.mark.parametrize(
    ("mask", "pattern"),
    [
        ("a_mask.png", "{stem}_mask"),
        ("label_a.png", "label_{stem}"),
        ("a.jpg.png", "{name}"),
        ("a.jpg_L.tif", "{name}_L"),
    ],
)
def test_names_by_a_pattern_and_the_pattern_is_suggested(folders, mask, pattern):
    masks = [mask, mask.replace("a", "b", 1) if mask.startswith("a") else "label_b.png"]
    with pytest.raises(InputError) as caught:
        pairs(folders, ["a.jpg", "b.jpg", "c.jpg"], masks)
    assert "2 of 2 masks in" in str(caught.value)
    assert str(caught.value).endswith(f"set data.mask_pattern={pattern}")
    matched, notes = pairs(folders, ["a.jpg", "b.jpg", "c.jpg"], masks, pattern)
    assert matched == dict(zip(["a.jpg", "b.jpg"], masks, strict=True))
    assert notes == []


def test_masks_of_no_image_are_counted_and_three_are_shown(folders):
    matched, (note,) = pairs(folders, ["a.jpg"], ["a.png", *(f"x{number}.png" for number in range(5))])
    assert matched == {"a.jpg": "a.png"}
    assert "5 of 6 masks in" in note
    assert note.endswith("(train/x0.png, train/x1.png, train/x2.png, ...) and are not used")


def test_names_that_have_nothing_in_common(folders):
    with pytest.raises(InputError, match=r"1 of 1 masks .* belong to no image .*; a mask has the path and the name"):
        pairs(folders, ["a.jpg"], ["zzz.png"])


def test_lossy_masks_are_named_with_the_reason(folders):
    assert "cannot be masks (train/b.jpg): JPEG or WebP" in pairs(folders, ["a.jpg"], ["a.png", "b.jpg"])[1][0]
    (folders[1] / "train/a.png").unlink()
    with pytest.raises(InputError, match="compression changes the values of a mask"):
        pairs(folders, ["a.jpg"], [])


def test_two_masks_of_one_image(folders):
    with pytest.raises(InputError, match="two masks of one image"):
        pairs(folders, ["a.jpg"], ["a.png", "a.tif"])


@pytest.mark.parametrize("pattern", ["", "mask", "{stem}{stem}", "{stem}_{name}", "../{stem}", "{other}"])
def test_patterns_without_a_meaning(folders, pattern):
    with pytest.raises(InputError, match=r"data\.mask_pattern: .* should hold \{stem\} or \{name\} once"):
        Masks(folders[1], pattern)


@pytest.mark.parametrize(("name", "mode"), [("m.jpg", "L"), ("m.webp", "RGB"), ("m.tif", "L")])
def test_a_lossy_file_is_no_mask_whatever_its_name(tmp_path, name, mode):
    from u2pl.data.files import FileSample

    image = Image.fromarray(np.zeros((8, 8), np.uint8)).convert(mode)
    image.save(tmp_path / name, **({"compression": "jpeg"} if name == "m.tif" else {}))
    (tmp_path / "m.png").write_bytes((tmp_path / name).read_bytes())
    image.convert("RGB").save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"mask .*m\.png: .* compression changes the values"):
        FileSample("a", tmp_path / "a.png", tmp_path / "m.png", 2).mask()
