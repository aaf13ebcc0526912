"""YAML of configurations: what PyYAML reads in silence, or answers with other errors, is one line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from u2pl.config.overrides import load_config
from u2pl.config.strict_yaml import StrictYamlError, load
from u2pl.errors import InputError

BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{below}'] * 9)}]\n" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-13-45", "2024-13-45"),
        ("2024-01-02", "2024-01-02"),
        ("2024-01-02 03:04:05", "2024-01-02 03:04:05"),
        ("0b_", "0b_"),
        ("12:30", "12:30"),
        ("010", "010"),
        ("9" * 5000, "9" * 5000),
        ("!!int foo", "foo"),
        ("!!bool foo", "foo"),
        ("=", "="),
        ("", None),
        ("0x1f", 31),
        ("-0.5", -0.5),
        ("007.5", 7.5),
        ("[1, no, a]", [1, False, "a"]),
        ("{a: {b: ~}}", {"a": {"b": None}}),
        ("{<<: {a: 1}}", {"<<": {"a": 1}}),
    ],
)
def test_values(text: str, value: object) -> None:
    assert load(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {steps: 1}\nseed: 2\ntrain: {lr: 1}", "line 3: the key 'train' comes again, first in line 1"),
        ("train:\n  lr: 1\n  lr: 2", "line 3: the key 'lr' comes again, first in line 2"),
        ("a: &x 1\nb: *x", r"line 1: anchors \(&name\) and aliases"),
        (BOMB, "anchors"),
        ("1: 2", "line 1: the key 1 is not a name"),
        ("null: x", "line 1: the key null is not a name"),
        ("? [a]\n: b", "is not a name"),
        ("a: !!python/object/apply:os.system [true]", "tag .* is not allowed"),
        ("a: !!set {b}", "tag .* is not allowed"),
        ("[" * 100_000, "nested more than 30 levels"),
        ("a:\n" + "".join(" " * depth + "a:\n" for depth in range(1, 400)), "nested more than 30 levels"),
        ("a: 1\nb: \0", "line 2: a control character"),
        ("a: \ud800", "a control character"),
        ("- a\n- [b", "line 2: while parsing a flow sequence"),
        ("--- a\n--- b", "expected a single document"),
    ],
)
def test_mistakes(text: str, words: str) -> None:
    began = time.perf_counter()
    with pytest.raises(StrictYamlError, match=words) as caught:
        load(text)
    assert time.perf_counter() - began < 1
    assert len(str(caught.value)) < 400


@settings(max_examples=300, deadline=1000)
@given(st.text(alphabet="ab:- \n{}[],&*!?#'\"|>%@`~0.1_eExX\t", max_size=60) | st.text(max_size=40))
def test_any_text_is_a_value_or_one_error(text: str) -> None:
    answer = ""
    answer = ""
    try:
        load(text)
    except StrictYamlError as error:
        answer = str(error)
    assert "\n" not in answer


@settings(max_examples=100, deadline=2000)
@given(st.binary(max_size=60))
def test_any_file_is_a_configuration_or_one_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    answer = ""
    try:
        load_config(path)
    except InputError as error:
        answer = str(error)
    assert "\n" not in answer


def test_files_name_themselves_and_the_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for content, words in (
        (b"seed: 1\nseed: 2\n", r"mine\.yaml is not YAML: line 2: the key 'seed'"),
        ("seed: 1\n".encode("utf-16"), "UTF-16"),
        (b"# caf\xe9\n", "line 1: cannot be read .it is not text in UTF-8"),
        (b"- train\n", "must hold sections"),
        (b"[]\n", "must hold sections"),
        (b"#" * 300_000, "too many for this"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            load_config(path)
    path.write_bytes(b"\xef\xbb\xbfseed: 7 # caf\xc3\xa9\r\n")
    assert load_config(path).seed == 7


def test_overrides_that_are_no_yaml_are_text() -> None:
    for text in ("2024-13-45", "0b_", "*name", "[x", "2012", "a: b: c"):
        assert load_config(None, [f"data.root={text}"]).data.root == text
    assert load_config(None, ["train.steps=010"]).train.steps == 10
