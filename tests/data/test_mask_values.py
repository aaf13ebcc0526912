"""Gray values and colours of masks become classes, as a table says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2pl.data.inspection import inspect
from u2pl.data.mask_values import IGNORED, mask_values, packed, refuse_numbers
from u2pl.data.readers.folder import folder
from u2pl.errors import InputError
from u2pl.structures import IGNORE_INDEX

Save = Callable[..., Path]
COLOURS = {"ground": (0, 0, 0), "road": (128, 64, 128), "walk": (244, 35, 232)}
SHORT = "#000000:ground,#804080:road,#F423E8:walk"


@pytest.fixture
def save(tmp_path: Path, write_image: Callable[..., Path]) -> Save:
    """``save(stored, mode=None)``: a data set of two images, one for validation, whose masks hold what is stored."""

    def write(stored: np.ndarray, mode: str | None = None, classes: tuple[str, ...] = ()) -> Path:
        for stem in ("a", "val/b"):
            write_image(tmp_path / "images" / f"{stem}.png", size=stored.shape[:2])
            path = tmp_path / "masks" / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            mask = Image.fromarray(stored)
            (mask if mode is None else mask.convert(mode, palette=Image.Palette.ADAPTIVE)).save(path)
        if classes:
            (tmp_path / "classes.txt").write_text("\n".join(classes))
        return tmp_path

    return write


def stripes(values: tuple[int, ...]) -> np.ndarray:
    return np.repeat(np.array(values, dtype=np.uint8), 4)[None].repeat(6, axis=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("colours", [False, True])
def test_each_pixel_is_looked_up(seed: int, colours: bool) -> None:
    random = np.random.default_rng(seed)
    listed = random.choice(1 << 24 if colours else 256, size=9, replace=False)
    names = random.choice(["a", "b", "c", IGNORED], size=9)
    names[:2] = "a", "b"
    text = ",".join(f"{f'#{v:06x}' if colours else v}:{n}" for v, n in zip(listed, names, strict=True))
    table = mask_values(text)
    raw = random.choice(listed, size=(5, 7))
    expected = [
        [
            IGNORE_INDEX
            if names[list(listed).index(v)] == IGNORED
            else table.classes.index(names[list(listed).index(v)])
            for v in row
        ]
        for row in raw
    ]
    assert table.apply(raw.astype(np.int64), Path("x")).tolist() == expected
    assert table.classes == tuple(dict.fromkeys(name for name in names if name != IGNORED))


def test_binary_masks_are_two_classes_once_they_are_named(save: Save) -> None:
    root = save(stripes((0, 255)))
    with pytest.raises(InputError, match=r"0 and 255 only.*data\.mask_values=0:background,255:NAME"):
        folder(root=root, val="val")
    source = folder(root=root, val="val", mask_values="0:ground,255:crack")
    assert source.classes == ("ground", "crack")
    assert source.labeled[0].mask()[0].tolist() == [0] * 4 + [1] * 4


def test_binary_masks_with_a_list_of_classes_are_an_error_of_the_data(save: Save) -> None:
    root = save(stripes((0, 255)), classes=("ground", "crack"))
    with pytest.raises(InputError, match=r"0 and 255 only.*data\.mask_values=0:background,255:crack"):
        folder(root=root, val="val")
    folder(root=root, labeled=False)  # no mask is read
    Image.fromarray(stripes((0, 1, 255))).save(root / "masks" / "a.png")
    folder(root=root, val="val")


def test_ignoring_all_but_one_of_the_shown_classes_is_no_binary_mask(save: Save) -> None:
    """By a list of classes to keep, or by the table itself: what is stored is not 0 and 255."""
    root = save(stripes((0, 2)), classes=("ground", "road", "walk"))
    for options in ({"classes": ("ground", "road")}, {"mask_values": "0:ground,1:road,2:ignore"}):
        assert inspect(folder(root=root, val="val", **options), semi_supervised=False).errors == ()


def test_one_class_is_no_segmentation(save: Save) -> None:
    source = folder(root=save(stripes((0, 0)), classes=("thing",)), val="val")
    assert any("name the background, too" in error for error in inspect(source, semi_supervised=False).errors)


@pytest.mark.parametrize("values", [(0, 38, 75), (0, 1, 2, 254), tuple(range(100))])
def test_values_that_are_no_class_numbers_are_refused(save: Save, values: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=rf"masks hold {len(values)} values.*data\.mask_values=") as caught:
        folder(root=save(stripes(values)), val="val")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 1, 3), (1, 2), (0, 1, IGNORE_INDEX), (0,)])
def test_class_numbers_are_taken_though_a_class_is_absent(values: tuple[int, ...]) -> None:
    refuse_numbers(frozenset(values), "masks")


@pytest.mark.parametrize("mode", [None, "RGBA", "P"])
def test_a_set_in_colours_is_read(save: Save, mode: str | None) -> None:
    stored = np.array(list(COLOURS.values()), dtype=np.uint8)[stripes((0, 1, 2))]
    source = folder(root=save(stored, mode), val="val", mask_values=SHORT)
    assert source.classes == tuple(COLOURS)
    assert source.palette == tuple(COLOURS.values())
    assert source.labeled[0].mask().tolist() == stripes((0, 1, 2)).tolist()


def test_classes_without_a_colour_leave_the_palette_to_others(save: Save) -> None:
    stored = np.array(list(COLOURS.values()), dtype=np.uint8)[stripes((0, 1, 2))]
    source = folder(root=save(stored, classes=(*COLOURS, "sky")), val="val", mask_values=SHORT)
    assert (len(source.classes), source.palette) == (4, ())


def test_colours_without_a_table_are_told_with_their_pixels(save: Save) -> None:
    stored = np.array(list(COLOURS.values()), dtype=np.uint8)[stripes((0, 1, 2))]
    source = folder(root=save(stored, classes=tuple(COLOURS)), val="val")
    with pytest.raises(InputError, match=r"#804080 \(24 pixels\).*data\.mask_values=#000000:CLASS"):
        source.labeled[0].mask()


def test_equal_channels_are_gray(save: Save) -> None:
    source = folder(root=save(np.repeat(stripes((0, 1, 2))[..., None], 3, axis=2)), val="val")
    assert source.labeled[0].mask().tolist() == stripes((0, 1, 2)).tolist()


def test_values_that_are_not_listed_are_told_with_their_pixels(save: Save) -> None:
    source = folder(root=save(stripes((0, 1, 7))), val="val", mask_values="0:ground,1:road")
    with pytest.raises(InputError, match=r"does not list: 7 \(24 pixels\).*ignore"):
        source.labeled[0].mask()
    ignored = folder(root=source.labeled[0].image_path.parents[1], val="val", mask_values="0:ground,1:road,7:ignore")
    assert ignored.labeled[0].mask()[0].tolist() == [0] * 4 + [1] * 4 + [IGNORE_INDEX] * 4


@pytest.mark.parametrize(
    "text",
    [
        "value,class\n0,ground\n255,crack\n",
        "name,r,g,b\nground,0,0,0\ncrack,255,255,255\n",
        "class,color\nground,#000000\ncrack,#ffffff",
    ],
)
def test_a_csv_names_the_values(tmp_path: Path, text: str) -> None:
    (tmp_path / "values.csv").write_text(text)
    table = mask_values("values.csv", (tmp_path,))
    raw = np.array([[0, packed(np.full((1, 1, 3), 255, np.uint8))[0, 0] if table.colours else 255]])
    assert table.classes == ("ground", "crack")
    assert table.apply(raw, Path("x")).tolist() == [[0, 1]]


def test_classes_txt_gives_the_order(save: Save) -> None:
    root = save(stripes((0, 255)), classes=("crack", "ground"))
    assert folder(root=root, val="val", mask_values="0:ground,255:crack").labeled[0].mask()[0, 0] == 1
    with pytest.raises(InputError, match=r"'hole' is not in classes\.txt; use one of crack, ground"):
        folder(root=root, val="val", mask_values="0:ground,255:hole")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.csv", r"there is no file nowhere\.csv"),
        ("0:ground", r"names fewer than two classes"),
        ("0:a,0:b", r"0 has two classes"),
        ("0:a,#ffffff:b", r"gray values and colours"),
        ("x:a,1:b", r"'x' is no value"),
        ("0:a,1", r"'1' is not VALUE:CLASS"),
        ("0:a,1:", r"is not VALUE:CLASS"),
        ("99999999:a,1:b", r"'99999999' is no value"),
        ("9" * 5000 + ":a,1:b", r"is no value"),
        ("0" * 5000 + ":a,1:b", r"is no value"),
        ("65536:a,1:b", r"'65536' is no value"),
        ("0:ignore,1:ignore", r"fewer than two classes"),
        ("~nouser/x.csv", r"there is no file"),
    ],
)
def test_what_is_no_table_is_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        mask_values(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe\x00", r"cannot be read"),
        (b"", r"lists no value"),
        (b"value,class\n", r"lists no value"),
        (b"value,class\n0\n1,b\n", r"line 2: there is no class"),
        (b"class\nground\n", r"line 2: there is no value"),
        (b"r,g,b,class\n0,0,999,a\n", r"line 2: r, g and b should be numbers"),
        (b"r,g,b,class\n0,x,0,a\n", r"line 2: r, g and b should be numbers"),
    ],
)
def test_a_broken_csv_is_one_line(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "values.csv"
    path.write_bytes(text)
    with pytest.raises(InputError, match=message) as caught:
        mask_values(str(path))
    assert "\n" not in str(caught.value)
