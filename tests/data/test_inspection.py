from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from u2pl.data.files import cached
from u2pl.data.inspection import inspect, verify
from u2pl.data.readers.folder import folder
from u2pl.data.source import DataSource
from u2pl.errors import InputError

CONTENTS = {"train/a": (0, 0, 0, 1), "train/b": (0, 255), "train/c": None, "val/d": (2, 1)}


@pytest.fixture
def root(write_folder):
    return write_folder(CONTENTS)


def read(root) -> DataSource:
    return folder(root=root, val="val")


def damage(path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def test_numbers(root, write_image):
    write_image(root / "images" / "train" / "c.png", size=(30, 10))
    calls = []
    found = inspect(read(root), semi_supervised=True, progress=lambda done, total: calls.append((done, total)))
    assert (found.labeled, found.unlabeled, found.val) == (2, 1, 1)
    assert (found.smallest, found.largest) == ((12, 16), (30, 10))
    assert found.labeled_shares == {"sky": 20 / 24, "road": 4 / 24, "car": 0.0}
    assert found.val_shares == {"sky": 0.0, "road": 0.5, "car": 0.5}
    assert found.labeled_images == {"sky": 2, "road": 1, "car": 0}
    assert found.val_images == {"sky": 0, "road": 1, "car": 1}
    assert (found.labeled_ignored, found.val_ignored) == (0.25, 0.0)
    assert found.absent == ("car",)
    assert found.errors == ()
    assert len(found.problems) == 1
    assert "'car'" in found.problems[0]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_every_problem_is_found_in_one_pass(root, write_image, write_mask):
    damage(root / "images" / "train" / "c.png")
    write_mask(root / "masks" / "train" / "a.png", (0, 9))
    write_mask(root / "masks" / "train" / "b.png", (255,))
    write_mask(root / "masks" / "train" / "orphan.png")
    write_image(root / "images" / "val" / "d.png", size=(5, 5))
    found = inspect(read(root), semi_supervised=True)
    errors, warnings = "\n".join(found.errors), "\n".join(found.warnings)
    assert len(found.errors) == 3
    assert "a.png holds the value 9" in errors
    assert "d.png is 16x12" in errors
    assert "c.png cannot be read" in errors
    assert "belong to no image (train/orphan.png)" in warnings
    assert "mask of train/b (labeled) is ignored" in warnings
    assert len(found.warnings) == 2  # which classes are absent is not known while a mask cannot be read
    assert found.problems == [*found.errors, *found.warnings]
    assert all("\n" not in problem for problem in found.problems)


def test_a_missing_image_is_one_problem(root):
    source = read(root)
    source.labeled[0].image_path.unlink()
    found = inspect(source, semi_supervised=True)
    assert len(found.errors) == 1
    assert "a.png is missing" in found.errors[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labeled": []}, "no labeled image"),
        ({"unlabeled": []}, "no unlabeled image"),
        ({"val": "labeled"}, "image train/a is in both labeled and val"),
    ],
)
def test_structure(root, change, words):
    source = read(root)
    source = replace(source, **{key: getattr(source, value) if value else [] for key, value in change.items()})
    found = inspect(source, semi_supervised=True)
    assert any(words in error for error in found.errors)
    with pytest.raises(InputError, match=words):
        verify(source, semi_supervised=True, thorough=False)


def test_supervised_needs_no_unlabeled_image(root):
    source = replace(read(root), unlabeled=[])
    assert inspect(source, semi_supervised=False).errors == ()
    verify(source, semi_supervised=False, thorough=True)


def test_no_validation_image_is_worth_a_warning(root):
    source = replace(read(root), val=[])
    for found in (inspect(source, semi_supervised=True), verify(source, semi_supervised=True, thorough=True)):
        assert found.errors == ()
        assert any("no validation images" in warning for warning in found.warnings)


@pytest.mark.parametrize("thorough", [True, False])
def test_verify_accepts_what_is_right(root, thorough):
    for source in (read(root), cached(read(root))):
        found = verify(source, semi_supervised=True, thorough=thorough)
        assert found.labeled_shares == inspect(source, semi_supervised=True).labeled_shares


@pytest.mark.parametrize("stem", ["train/a", "val/d"])
def test_verify_finds_wrong_masks_at_once(root, write_mask, stem):
    write_mask(root / "masks" / f"{stem}.png", (0, 9))
    with pytest.raises(InputError, match=r"[ad]\.png holds the value 9"):
        verify(read(root), semi_supervised=True, thorough=False)


def test_verify_finds_broken_headers_of_unlabeled_images_at_once(root):
    (root / "images" / "train" / "c.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"c\.png is no JPEG"):
        verify(read(root), semi_supervised=True, thorough=False)


def test_damage_behind_the_header_takes_a_thorough_look(root):
    path = root / "images" / "train" / "c.png"
    damage(path)
    verify(read(root), semi_supervised=True, thorough=False)
    with pytest.raises(InputError, match=path.name):
        verify(read(root), semi_supervised=True, thorough=True)


@dataclass(frozen=True)
class Drawn:
    """A sample that is no file, with a mask of its own size."""

    name: str
    height: int = 4
    has_mask: bool = True

    def image(self) -> Tensor:
        return torch.zeros(3, 4, 4, dtype=torch.uint8)

    def mask(self) -> Tensor:
        return torch.zeros(self.height, 4, dtype=torch.uint8)


def test_samples_that_are_no_files():
    good = DataSource(("a", "b"), [Drawn("x")], [Drawn("y")], [Drawn("z")])
    assert inspect(good, semi_supervised=True).errors == ()
    verify(good, semi_supervised=True, thorough=False)
    bad = replace(good, labeled=[Drawn("x", height=5)])
    with pytest.raises(InputError, match="mask of x"):
        verify(bad, semi_supervised=True, thorough=False)
