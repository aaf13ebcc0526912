"""Published split files from a server of this machine, and drawn ones."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from u2pl.build import build_source
from u2pl.commands.splits import Published, draw_splits, fetch_splits, published_splits, read_counts
from u2pl.config.overrides import load_config
from u2pl.data.splits import read_split
from u2pl.errors import InputError

IMAGES = [f"leftImg8bit/train/ulm/{index:03d}_leftImg8bit.png" for index in range(12)]
FILES = ["val.txt", *(f"{count}/{part}.txt" for count in (3, 4) for part in ("labeled", "unlabeled"))]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


def serve(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def write(root: Path, file: str, ids: list[str], end: str = "\n") -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(end.join(ids).encode())


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """The lists of the data set `made` as they are published: no line feed at the end, one file with CRLF."""
    root = tmp_path / "upstream" / "made"
    write(root, "val.txt", ["v", "w"])
    for count in (3, 4):
        write(root, f"{count}/labeled.txt", IMAGES[-count:])
        write(root, f"{count}/unlabeled.txt", IMAGES[:-count], end="\r\n" if count == 4 else "\n")
    return root


@pytest.fixture
def url(upstream: Path) -> Iterator[str]:
    yield from serve(upstream.parent)


@pytest.fixture
def known(upstream: Path) -> dict[str, Published]:
    """What is known of them: checksums of the split 3 and of val.txt."""
    checksums = {
        file: hashlib.sha256((upstream / file).read_bytes()).hexdigest() for file in FILES if not file.startswith("4")
    }
    all_of_them = hashlib.sha256("\n".join(sorted(IMAGES)).encode()).hexdigest()
    return {"made": Published("http://0.0.0.0:1/nowhere", len(IMAGES), all_of_them, 2, (3, 4), checksums)}


def refused(out: Path, known: dict[str, Published], url: str | None, name: str = "made") -> str:
    """What is said of a fetch that must write nothing."""
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(InputError) as caught:
        fetch_splits(name, out, url=url, known=known)
    assert "\n" not in str(caught.value)
    assert sorted(out.parent.rglob("*")) == before
    return str(caught.value)


def test_what_is_published_arrives_byte_by_byte(
    tmp_path: Path, upstream: Path, url: str, known: dict[str, Published]
) -> None:
    out = tmp_path / "new" / "splits"
    for _ in range(2):  # again, over the same files
        assert fetch_splits("made", out, url=f"{url}/", known=known) == 5
        found = {path.relative_to(out / "made").as_posix(): path.read_bytes() for path in out.rglob("*.txt")}
        assert found == {file: (upstream / file).read_bytes() for file in FILES}
        assert not list(tmp_path.rglob(".splits-*"))
    assert read_split(out / "made" / "4" / "unlabeled.txt") == IMAGES[:-4]
    named = {"made": replace(known["made"], url=url)}
    assert fetch_splits("made", tmp_path / "by_its_own_address", known=named) == 5


@pytest.mark.parametrize(
    ("file", "ids", "expected"),
    [
        ("3/labeled.txt", [*IMAGES[-2:], IMAGES[-3]], "its checksum differs"),  # order is part of the bytes
        ("val.txt", ["v"], "its checksum differs"),
        ("4/labeled.txt", IMAGES[-3:], "it lists 3 images on 3 lines, not 4"),
        ("4/labeled.txt", [*IMAGES[-3:], IMAGES[-3]], "it lists 3 images on 4 lines, not 4"),
        ("4/unlabeled.txt", IMAGES, "it lists 12 images on 12 lines, not 8"),
        ("4/unlabeled.txt", [], "it lists 0 images on 0 lines, not 8"),
        ("4/labeled.txt", IMAGES[:4], "each of the 12 training images once"),  # all of them unlabeled, too
        ("4/labeled.txt", [*IMAGES[-3:], "another"], "each of the 12 training images once"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, upstream: Path, url: str, known: dict[str, Published], file: str, ids: list[str], expected: str
) -> None:
    write(upstream, file, ids)
    message = refused(tmp_path / "splits", known, url)
    assert f"{url}/made/{file.removesuffix('.txt') if 'each' not in expected else '4'}" in message
    assert expected in message
    assert "nothing was written" in message


def test_a_page_in_place_of_a_file_is_refused(
    tmp_path: Path, upstream: Path, url: str, known: dict[str, Published]
) -> None:
    (upstream / "4" / "labeled.txt").write_bytes(b"<html>\n\xff\n")
    assert "it lists 2 images on 2 lines, not 4" in refused(tmp_path / "splits", known, url)


def test_a_server_without_the_file_is_told(
    tmp_path: Path, upstream: Path, url: str, known: dict[str, Published]
) -> None:
    (upstream / "4" / "unlabeled.txt").unlink()
    message = refused(tmp_path / "splits", known, url)
    assert f"{url}/made/4/unlabeled.txt cannot be fetched (the server answers 404 " in message
    assert "--url" in message


def test_no_network_is_told_at_once(tmp_path: Path, known: dict[str, Published]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    started = time.perf_counter()
    message = refused(tmp_path / "splits", known, nobody)
    assert time.perf_counter() - started < 5
    assert f"{nobody}/made/val.txt cannot be fetched (" in message
    assert "check the connection" in message
    for bad in ("nowhere", "ftq://x", "http://"):
        assert f"{bad.rstrip('/')}/made/val.txt cannot be fetched (" in refused(tmp_path / "splits", known, bad)


def test_names_and_places_that_will_not_do(tmp_path: Path, url: str, known: dict[str, Published]) -> None:
    assert "no published splits of 'voc' (known: made)" in refused(tmp_path / "splits", known, url, name="voc")
    write(tmp_path / "splits", "made/3/labeled.txt", ["mine"])
    assert "splits/made/3/labeled.txt exists with other content" in refused(tmp_path / "splits", known, url)
    (tmp_path / "file").write_text("")
    assert "file/made: cannot write there" in refused(tmp_path / "file", known, url)


def test_what_is_known_of_the_published_lists() -> None:
    sizes = {"pascal": (10582, {92, 183, 366, 732, 1464, 662, 1323, 2646, 5291}), "cityscapes": (2975, {186, 372, 744})}
    known = published_splits()
    assert set(known) == set(sizes)
    for name, (images, counts) in sizes.items():
        assert known[name].images == images
        assert counts <= set(known[name].labeled)
        assert set(known[name].sha256) <= set(known[name].counts())
        assert all(len(bytes.fromhex(digest)) == 32 for digest in known[name].sha256.values())
    assert known["pascal"].counts()["732/unlabeled.txt"] == 9850


@pytest.mark.parametrize(("name", "sizes"), [("pascal", (92, 662, 1464)), ("cityscapes", (744,))])
def test_the_real_lists_pass(tmp_path: Path, real_data: Path, name: str, sizes: tuple[int, ...]) -> None:
    known = {name: replace(published_splits()[name], labeled=sizes)}
    for url in serve(real_data / "splits"):
        assert fetch_splits(name, tmp_path, url=url, known=known) == 1 + 2 * len(sizes)
        # without checksums of files, that of all images holds
        unknown = {name: replace(known[name], sha256={})}
        assert fetch_splits(name, tmp_path, url=url, known=unknown) == 1 + 2 * len(sizes)


@pytest.fixture
def folder(write_folder: Callable[..., Path]) -> Path:
    contents: dict[str, Any] = {f"train/{index:02d}": (0, 1) if index % 5 else (0, 2) for index in range(20)}
    return write_folder({**contents, "train/bare": None, "val/a": (0, 1)})


def test_draws_are_those_of_a_count(tmp_path: Path, folder: Path) -> None:
    overrides = [f"data.root={folder}", "data.val=val", "data.cache=false", "seed=3"]
    assert draw_splits(load_config("folder", overrides), (2, 5, 20), tmp_path / "out") == 6
    for count in (2, 5, 20):
        by_count = build_source(load_config("folder", [*overrides, f"data.labeled={count}"]).data, seed=3)
        file = tmp_path / "out" / str(count) / "labeled.txt"
        by_file = build_source(load_config("folder", [*overrides, f"data.labeled={file}"]).data, seed=0)
        assert len(by_file.labeled) == count
        assert by_file == by_count
        unlabeled = read_split(file.with_name("unlabeled.txt"))
        assert unlabeled == [sample.name for sample in by_count.unlabeled]
    other = draw_splits(load_config("folder", [*overrides, "seed=4"]), (5,), tmp_path / "other")
    assert other == 2
    assert (tmp_path / "other/5/labeled.txt").read_text() != (tmp_path / "out/5/labeled.txt").read_text()


def test_a_row_of_the_paper_reads_its_lists_in_both_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_image: Callable[..., Path], write_mask: Callable[..., Path]
) -> None:
    root = tmp_path / "VOC2012"
    names = [f"2007_{index:06d}" for index in range(6)]
    for name in names:
        write_image(root / "JPEGImages" / f"{name}.jpg")
        write_mask(root / "SegmentationClassAug" / f"{name}.png", (0, 5))
    write(root, "ImageSets/Segmentation/train.txt", names[:4])
    write(root, "ImageSets/Segmentation/val.txt", names[5:])
    row = load_config("voc_classic_92", [f"data.root={root}"])
    assert draw_splits(row, (3,), tmp_path / "drawn") == 2  # its own lists are not asked for
    assert len(read_split(tmp_path / "drawn" / "3" / "unlabeled.txt")) == 1
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "splits/pascal/92/labeled.txt", names[:2])
    pairs = [f"JPEGImages/{name}.jpg SegmentationClassAug/{name}.png" for name in names[2:5]]
    write(tmp_path, "splits/pascal/92/unlabeled.txt", pairs)
    source = build_source(row.data, seed=0)
    assert [sample.name for sample in source.labeled] == names[:2]
    assert [sample.name for sample in source.unlabeled] == names[2:5]
    write(tmp_path, "splits/pascal/92/labeled.txt", [names[0], names[5]])
    with pytest.raises(InputError, match=f"{names[5]}.* in both labeled and val"):
        build_source(row.data, seed=0)
    write(tmp_path, "splits/pascal/92/labeled.txt", [names[0], "2012_000000"])
    with pytest.raises(InputError, match=r"lists 1 image \(2012_000000\) not found among the images"):
        build_source(row.data, seed=0)


def test_where_all_are_labeled_there_is_no_list_of_the_others(
    tmp_path: Path, write_folder: Callable[..., Path]
) -> None:
    root = write_folder({"a": (0, 1), "b": (0, 1)})
    assert draw_splits(load_config("folder", [f"data.root={root}"]), (2,), tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out" / "2").iterdir()] == ["labeled.txt"]


def test_draws_that_cannot_be(tmp_path: Path, folder: Path) -> None:
    config = load_config("folder", [f"data.root={folder}", "data.val=val"])
    with pytest.raises(InputError, match=r"labeled: 21 images requested, but only 20 in .* have masks"):
        draw_splits(config, (5, 21), tmp_path / "out")
    with pytest.raises(InputError, match=r"data\.root: is needed"):
        draw_splits(load_config("folder"), (5,), tmp_path / "out")
    with pytest.raises(InputError, match=r"data\.name: scenes has no files"):
        draw_splits(load_config("scenes"), (5,), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "x", "1,", "1.5", "3 4"])
def test_counts_that_are_none(text: str) -> None:
    assert read_counts("3, 4,5") == [3, 4, 5]
    with pytest.raises(InputError, match=f"--labeled '{text}': should be counts"):
        read_counts(text)


def test_a_split_file_that_was_not_fetched_is_told(folder: Path) -> None:
    for path, remedy in (
        ("splits/pascal/92/labeled.txt", "`u2pl splits fetch pascal` fetches"),
        ("splits/cityscapes/186/labeled.txt", "`u2pl splits fetch cityscapes` fetches"),
        ("mine/92/labeled.txt", "give the path of a text file"),
        ("labeled.txt", "give the path of a text file"),
    ):
        config = load_config("folder", [f"data.root={folder}", f"data.labeled={path}"])
        with pytest.raises(InputError, match=f"there is no split file {path}; {remedy}"):
            build_source(config.data, seed=0)
