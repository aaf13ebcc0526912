from pathlib import Path

import pytest

from u2pl.data.files import FileSample
from u2pl.data.splits import Pool, draw_labeled, read_split, refuse_overlap
from u2pl.errors import InputError


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "split.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def pool_of(root: Path, *names: str, image_folder: str = "images", ending: str = "") -> Pool:
    """Images that all claim a mask, except those whose name ends in ``bare``."""
    samples = [
        FileSample(name, root / f"{name}.jpg", None if name.endswith("bare") else root / f"{name}.png", 2)
        for name in names
    ]
    return Pool(samples, root=root, folders=(root,), image_folder=image_folder, ending=ending)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("2007_000033\n2007_000042", ["2007_000033", "2007_000042"]),
        (b"\xef\xbb\xbfa\r\n\r\n b \r\n\r\n", ["a", "b"]),
        ("b\na\nb\n", ["b", "a"]),
        ("leftImg8bit/train/ulm/x_leftImg8bit.png\n", ["leftImg8bit/train/ulm/x_leftImg8bit.png"]),
        ("JPEGImages/a.jpg SegmentationClassAug/a.png\n", ["JPEGImages/a.jpg"]),
        ("images/a.JPG\tmasks/a.png\n", ["images/a.JPG"]),
        ("my photo 1\nmy photo.png\n", ["my photo 1", "my photo.png"]),
    ],
)
def test_read_split_formats(write, text, ids):
    assert read_split(write(text)) == ids


@pytest.mark.parametrize("text", ["", "\n \r\n", b"\xff\xfe\x00\x80"])
def test_split_without_ids_is_refused(write, text):
    with pytest.raises(InputError, match=r"split\.txt") as caught:
        read_split(write(text))
    assert "\n" not in str(caught.value)


def test_missing_split_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt"):
        read_split(tmp_path / "nowhere.txt")


def test_shared_split_files(real_data):
    voc = read_split(real_data / "splits/pascal/92/labeled.txt")
    assert len(voc) == 92
    assert voc[0] == "2007_000733"
    assert len(read_split(real_data / "splits/pascal/662/unlabeled.txt")) == 9920
    assert not set(voc) & set(read_split(real_data / "splits/pascal/92/unlabeled.txt"))
    assert len(read_split(real_data / "splits/cityscapes/744/labeled.txt")) == 744
    assert len(read_split(real_data / "splits/cityscapes/val.txt")) == 500


PRESENCE = {f"n{i}": frozenset({0, 1 + i % 2}) for i in range(20)} | {
    "rare": frozenset({0, 3}),
    "both": frozenset({3, 4}),
    "void": frozenset(),
}


def test_draw_covers_all_classes_with_as_few_images_as_needed():
    for seed in range(20):
        drawn = draw_labeled(PRESENCE, 3, seed)
        assert len(drawn) == 3
        assert frozenset().union(*(PRESENCE[name] for name in drawn)) == {0, 1, 2, 3, 4}


def test_draw_does_not_always_take_the_most_crowded_image():
    crowded = {f"n{i}": frozenset({i % 3}) for i in range(9)} | {"all": frozenset({0, 1, 2})}
    assert {"all" in draw_labeled(crowded, 4, seed) for seed in range(20)} == {True, False}
    assert all("all" in draw_labeled(crowded, 2, seed) for seed in range(20))


def test_draw_prefers_the_rarest_class_when_not_all_fit():
    assert all(draw_labeled(PRESENCE, 1, seed) == ["both"] for seed in range(10))


def test_draw_depends_on_the_seed_and_not_on_the_order():
    backwards = dict(reversed(PRESENCE.items()))
    draws = {tuple(draw_labeled(PRESENCE, 8, seed)) for seed in range(5)}
    assert len(draws) == 5
    assert draws == {tuple(draw_labeled(backwards, 8, seed)) for seed in range(5)}


def test_draw_is_stable_across_versions():
    assert draw_labeled(PRESENCE, 5, 0) == ["both", "n15", "n16", "n5", "n7"]


def test_draws_are_nested_and_leave_empty_masks_for_last():
    small, large = draw_labeled(PRESENCE, 6, 1), draw_labeled(PRESENCE, 12, 1)
    assert set(small) < set(large)
    assert set(draw_labeled(PRESENCE, 22, 1)) == set(PRESENCE) - {"void"}
    assert set(draw_labeled(PRESENCE, 23, 1)) == set(PRESENCE)


@pytest.mark.parametrize(
    "identifier",
    ["train/a.b", "a.b", "train/a.b.jpg", "images/train/a.b.JPG", "/data/images/train/a.b.png", "train\\a.b", "./a.b"],
)
def test_ids_match_by_relative_and_by_bare_stem(tmp_path, write, identifier):
    pool = pool_of(tmp_path, "train/a.b", "train/c")
    assert pool.listed(write(identifier), key="labeled", masks=True) == ["train/a.b"]


def test_ids_of_another_folder_do_not_match(tmp_path, write):
    with pytest.raises(InputError, match="val/a"):
        pool_of(tmp_path, "train/a", "a").listed(write("val/a"), key="labeled", masks=True)


def test_ending_of_ids(tmp_path, write):
    pool = pool_of(tmp_path, "train/ulm/x", image_folder="leftImg8bit", ending="_leftImg8bit")
    for line in ("leftImg8bit/train/ulm/x_leftImg8bit.png", "x", "x_leftImg8bit", "train/ulm/x"):
        assert pool.listed(write(line), key="labeled", masks=True) == ["train/ulm/x"]


def test_absent_ids_are_named_up_to_three(tmp_path, write):
    with pytest.raises(InputError) as caught:
        pool_of(tmp_path, "a").listed(write("v1\na\nv2\nv3\nv4"), key="labeled", masks=True)
    message = str(caught.value)
    assert "split.txt lists 4 images (v1, v2, v3, ...) not found" in message
    assert str(tmp_path) in message
    assert "\n" not in message


def test_ambiguous_id_is_refused(tmp_path, write):
    with pytest.raises(InputError, match=r"split\.txt: a is ambiguous \(x/a, y/a\)"):
        pool_of(tmp_path, "x/a", "y/a").listed(write("a"), key="labeled", masks=True)


def test_listed_image_without_mask_is_refused_where_masks_are_needed(tmp_path, write):
    pool = pool_of(tmp_path, "a", "bare")
    assert pool.listed(write("a\nbare"), key="unlabeled", masks=False) == ["a", "bare"]
    with pytest.raises(InputError, match=r"split\.txt \(val\) lists 1 image \(bare\) without a mask"):
        pool.listed(write("a\nbare"), key="val", masks=True)


def test_split_file_is_found_from_the_root(tmp_path, write):
    write("a")
    assert pool_of(tmp_path, "a").listed("split.txt", key="labeled", masks=True) == ["a"]
    with pytest.raises(InputError, match=r"labeled: there is no split file other\.txt"):
        pool_of(tmp_path, "a").listed("other.txt", key="labeled", masks=True)


def test_two_images_of_one_stem_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.jpg and a\.jpg have the same name without the suffix"):
        pool_of(tmp_path, "a", "b", "a")


@pytest.mark.parametrize("labeled", [0, -1, 4])
def test_impossible_counts(tmp_path, labeled):
    with pytest.raises(InputError, match=f"labeled: {labeled} .* 3 "):
        pool_of(tmp_path, "a", "b", "c", "bare").labeled(labeled, among=["a", "b", "c", "bare"], seed=0)


@pytest.mark.parametrize("labeled", [0.0, 1.5, -0.1, float("nan")])
def test_impossible_fractions(tmp_path, labeled):
    with pytest.raises(InputError, match="labeled: the fraction"):
        pool_of(tmp_path, "a").labeled(labeled, among=["a"], seed=0)


@pytest.mark.parametrize("labeled", [None, 1.0, 3])
def test_everything_with_a_mask(tmp_path, labeled):
    names = ["b", "a", "c", "bare"]
    assert pool_of(tmp_path, *names).labeled(labeled, among=names, seed=0) == ["b", "a", "c"]


def test_nothing_with_a_mask(tmp_path):
    with pytest.raises(InputError, match="no labeled image"):
        pool_of(tmp_path, "bare").labeled(None, among=["bare"], seed=0)


def test_overlap_is_refused(tmp_path):
    refuse_overlap(["a"], ["b"], tmp_path)
    with pytest.raises(InputError, match=r"1 image \(b\) in both labeled and val"):
        refuse_overlap(["a", "b"], ["b", "c"], tmp_path)
