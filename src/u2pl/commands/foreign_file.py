"""A configuration file of another program: its keys, and which of them are taken."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from u2pl.errors import InputError

GIVE = "give the config.yaml of U2PL's released code, of UniMatch or of UniMatch V2"


class ForeignFile:
    """The keys of a file, such as ``trainer.epochs``. Remembers which of them were taken."""

    def __init__(self, path: Path, tree: Mapping[str, Any]) -> None:
        self.path, self.tree = path, tree
        self.taken: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        found: Any = self.tree
        for name in key.split("."):
            if not isinstance(found, Mapping) or name not in found:
                return default
            found = found[name]
        self.taken.add(key)
        return found

    def has(self, key: str) -> bool:
        """Whether there is a section of this name, without taking it."""
        before = set(self.taken)
        found = self.get(key)
        self.taken = before
        return bool(found)

    def need(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise InputError(f"{self.path}: has no key {key}; {GIVE}")
        return value

    def one_of(self, key: str, known: Mapping[Any, Any], default: Any = None) -> Any:
        value = self.get(key)
        value = default if value is None else value
        plain = value.lower() if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
        found = [ours for theirs, ours in known.items() if theirs == plain]
        if not found:
            raise InputError(f"{self.path}: {key}: {value!r} has no counterpart (known: {', '.join(map(str, known))})")
        return found[0]

    def number(self, key: str, default: float | None = None) -> Any:
        value = self.get(key)
        value = default if value is None else value
        if value is not None and not _is_number(value):
            raise InputError(f"{self.path}: {key}: {value!r} is no number")
        return value

    def length(self, key: str) -> Any:
        """The number of epochs, without which a training would have another length than theirs."""
        self.need(key)
        epochs = self.number(key)
        if not epochs > 0:
            raise InputError(f"{self.path}: {key}: {epochs!r} is no number above 0")
        return epochs

    def colour(self, key: str) -> list[float] | None:
        """Red, green and blue of [0, 255] in [0, 1]."""
        value = self.get(key)
        if value is None:
            return None
        if not (isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))):
            raise InputError(f"{self.path}: {key}: {value!r} is no list of three numbers")
        return [round(each / 255, 6) for each in value]

    def place(self, key: str) -> str | None:
        """A path, which starts at the folder of the file."""
        value = self.get(key)
        return None if value is None else os.path.normpath(self.path.parent / str(value))

    def left(self) -> Iterator[tuple[str, Any]]:
        def walk(tree: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
            for name, value in tree.items():
                key = f"{above}{name}"
                if isinstance(value, Mapping) and key not in self.taken:
                    yield from walk(value, f"{key}.")
                elif key not in self.taken:
                    yield key, value

        yield from walk(self.tree, "")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
