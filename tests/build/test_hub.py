"""Addresses on the Hub, and names of repositories."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import pytest

from u2pl.build.hub import address, check_repository, check_weights
from u2pl.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://me/streets", ("me/streets", None)),
        ("hf://me/streets@v1.0", ("me/streets", "v1.0")),
        ("hf://me/streets@refs/pr/1", ("me/streets", "refs/pr/1")),
        ("runs/streets", None),
        ("/hf:/me/streets", None),
        ("hf.safetensors", None),
        ("", None),
    ],
)
def test_addresses_as_text_and_as_paths(text: str, expected: tuple[str, str | None] | None) -> None:
    assert address(text) == expected
    assert address(Path(text)) == expected  # a path has one slash less
    assert address(PureWindowsPath(text)) == expected


@pytest.mark.parametrize("name", ["me/streets", "Me-2/a_b.c", "m/s"])
def test_names_of_repositories(name: str) -> None:
    check_repository(name)


@pytest.mark.parametrize(
    "name", ["", "streets", "me/", "/s", "me/a/b", "me/a b", "me/..", "me/a--b", "me/ä\n", "a" * 97 + "/b"]
)
def test_what_is_no_name_is_one_line(name: str) -> None:
    with pytest.raises(InputError, match="is no name of a repository; write user/name") as caught:
        check_repository(name)
    assert "\n" not in str(caught.value)


def test_other_weights() -> None:
    check_weights("best")
    with pytest.raises(InputError, match="--weights first: should be last or best"):
        check_weights("first")
