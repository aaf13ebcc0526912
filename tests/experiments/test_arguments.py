"""Lists, variants and axes as text."""

from __future__ import annotations

import random

import pytest
import yaml

from u2pl.errors import InputError
from u2pl.experiments.arguments import parse_axes, parse_list, parse_seeds, parse_variants, split_outside_brackets


@pytest.mark.parametrize("seed", range(20))
def test_values_are_split_as_yaml_splits_a_list(seed: int) -> None:
    draw = random.Random(seed)

    def value(depth: int) -> str:
        kind = draw.randrange(6 if depth < 3 else 4)
        if kind == 4:
            return "[" + ", ".join(value(depth + 1) for _ in range(draw.randrange(3))) + "]"
        if kind == 5:
            return "{a: " + value(depth + 1) + ", b: 1}"
        return [str(draw.randrange(100)), "1.5", "true", '"a, [b"'][kind]

    texts = [value(0) for _ in range(draw.randrange(1, 5))]
    split = split_outside_brackets(",".join(texts))
    assert split == texts
    assert [yaml.safe_load(part) for part in split] == yaml.safe_load(f"[{', '.join(texts)}]")


def test_lists() -> None:
    assert parse_list("--labeled", None) == []
    assert parse_list("--labeled", "23, 0.1,a/b.txt,23") == ["23", "0.1", "a/b.txt"]
    for text in ("", "1,,2", "1,"):
        with pytest.raises(InputError, match=r"^--labeled .*: an item is empty"):
            parse_list("--labeled", text)


def test_seeds() -> None:
    assert parse_seeds(None) == []
    assert parse_seeds("2,0,2") == [2, 0]
    for text in ("a", "1.5", "-1"):
        with pytest.raises(InputError, match=r"^--seeds .* is no seed"):
            parse_seeds(text)


def test_variants() -> None:
    assert parse_variants(['ours: method.name=u2pl  data.root="a b"', "two words:seed=1"]) == {
        "ours": ("method.name=u2pl", "data.root=a b"),
        "two words": ("seed=1",),
    }
    for text in ("ours", "ours:", ": a=1", "ours=method.name=u2pl", "method.name=u2pl a:b"):
        with pytest.raises(InputError, match=r'write "NAME: key=value key=value"'):
            parse_variants([text])
    with pytest.raises(InputError, match="close the quotes"):
        parse_variants(['ours: a="b'])
    with pytest.raises(InputError, match="ours: is given twice"):
        parse_variants(["ours: a=1", "ours: b=1"])


def test_axes() -> None:
    assert parse_axes(
        ["method.negative_keys.low_rank=1,3", "train.scale_range=[0.5,2.0],[1,1]", "data.root=a=b,c"]
    ) == {
        "method.negative_keys.low_rank": ["1", "3"],
        "train.scale_range": ["[0.5,2.0]", "[1,1]"],
        "data.root": ["a=b", "c"],
    }
    for text in ("method.negative_keys.low_rank", "=1", "method.negative_keys.low_rank="):
        with pytest.raises(InputError, match="write KEY=VALUE,VALUE"):
            parse_axes([text])
    with pytest.raises(InputError, match="a: is given twice"):
        parse_axes(["a=1", "a=2"])
    with pytest.raises(InputError, match=r"--axis a: '\[1' is not YAML"):
        parse_axes(["a=[1"])
    with pytest.raises(InputError, match="an item is empty"):
        parse_axes(["a=1,,2"])
