"""Every reader of text ends in its value or in one InputError, whatever the file holds, and at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from u2pl.data.class_mapping import read_mapping
from u2pl.data.classes import read_classes
from u2pl.data.mask_values import mask_values
from u2pl.data.splits import Pool, read_split
from u2pl.data.tags import read_annotation, read_csv
from u2pl.data.text import read_rows
from u2pl.errors import InputError

NAMES = ("sky", "road")
POOL = Pool([], root=Path("set"), folders=(), image_folder="images")
READERS: dict[str, Callable[[Path], Any]] = {
    "classes": read_classes,
    "split": read_split,
    "mapping": lambda path: read_mapping(path, NAMES, NAMES),
    "mask values": lambda path: mask_values(str(path)),
    "tags": lambda path: read_csv(path, POOL),
    "annotation": read_annotation,
}
HEADS = [b"", b"value,class\n", b"r,g,b,name\n", b"source,target\n", b"image;tags\n", b"<annotation><object><name>"]
CONTENT = st.builds(
    bytes.__add__,
    st.sampled_from(HEADS),
    st.binary(max_size=50) | st.text(alphabet='ab,;\t"\n\r0:#<>/&!\0\x85\u2028', max_size=50).map(str.encode),
)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@settings(max_examples=150, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=CONTENT)
def test_any_bytes(tmp_path: Path, reader: Callable[[Path], Any], data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    answer = ""
    try:
        reader(path)
    except InputError as error:
        answer = str(error)
    assert "\n" not in answer
    assert len(answer) < 1500


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_what_is_no_text_names_the_file(tmp_path: Path, reader: Callable[[Path], Any]) -> None:
    path = tmp_path / "file.txt"
    for content in ("sky\nroad".encode("utf-16"), b"\x89PNG\r\n\x1a\n\0\0", b"a\0b", b"x" * 50_000):
        path.write_bytes(content)
        began = time.perf_counter()
        with pytest.raises(InputError, match=r"file\.txt"):
            reader(path)
        assert time.perf_counter() - began < 1
    path.unlink()
    os.mkfifo(path)
    for other in (path, tmp_path, tmp_path / "none"):
        with pytest.raises(InputError):
            reader(other)
    with pytest.raises(InputError):
        reader(Path("/dev/zero"))


def test_an_open_quote_is_found_where_it_opens(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b\nc,"d\ne,f\ng,h\n')
    with pytest.raises(InputError, match=r"t\.csv, line 2: a quote does not close"):
        read_rows(path, give="give a csv", delimiter=lambda head: ",")
    path.write_text('a,b\n\n"c" , "d,e"\n')
    assert read_rows(path, give="", delimiter=lambda head: ",") == [(1, ["a", "b"]), (3, ["c", "d,e"])]


def test_names_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    for text, words in (
        ("sky, road, car\n", "has one line, .*; write one class name per line"),
        ("sky\nro\x1b[31mad\n", "line 2: holds the control character"),
        ("sky\nro\u202ead\n", "line 2: holds the control character"),
        ("sky\n" + "r" * 201, "line 2: .* is too long"),
        ("\n".join(map(str, range(300))), "names 300 classes"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=words):
            read_classes(path)
    path.write_text("Strasse, nass\nWände\n", encoding="utf-8")
    assert read_classes(path) == ("Strasse, nass", "Wände")


def test_entities_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    lol = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))
    path.write_text(f'<!DOCTYPE a [<!ENTITY l0 "lol">{lol}]><a><object><name>&l8;</name></object></a>')
    with pytest.raises(InputError, match=r"a\.xml cannot be read \(it has a DOCTYPE\)"):
        read_annotation(path)
    path.write_text("<a><object><name> sky </name></object><object/></a>")
    assert read_annotation(path) == {"sky"}
