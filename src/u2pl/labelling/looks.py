"""A file of looks at images. It grows by one record an image, so a command that was killed goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from u2pl.engine.checkpoint import unwritable, write_text_atomically
from u2pl.errors import InputError
from u2pl.labelling.looking import Look
from u2pl.labelling.ranking import BINS
from u2pl.paths import read_text

_RECORDS, _ABOUT = "looks.bin", "looks.json"
#: Names of the files in their folder.
LOOKS_FILES = (_RECORDS, _ABOUT)
_READ = 1024  # records converted at a time


class Looks:
    """Looks at images by their number. They are on disk, and of few images at a time in memory.

    Args:
        folder: where the files are.
        about: what the looks depend on: JSON. Looks of something else are dropped.
        number: of the images.

    Raises InputError for a file that cannot be read or written.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], number: int) -> None:
        self.path, self.note, self.about = folder / _RECORDS, folder / _ABOUT, dict(about)
        self.kind: np.dtype[Any] | None = None
        self.places: list[int] = []  #: of the image of each record
        before = self._before()
        if before is not None:
            self.kind = record_of(before["classes"], before["features"])
            self._keep_whole_records()
        if len({*self.places} & {*range(number)}) < len(self.places):  # not what was written
            self.kind, self.places = None, []

    def add(self, place: int, look: Look) -> None:
        """Write the look at image number ``place``."""
        if self.kind is None:
            classes, features = len(look.histogram), len(look.embedding)
            self.kind = record_of(classes, features)
            self._write("wb", b"")
            about = {**self.about, "classes": classes, "features": features}
            write_text_atomically(self.note, json.dumps(about, indent=1) + "\n")
        record = np.zeros((), dtype=self.kind)
        record["place"], record["entropy"] = place, look.entropy
        record["embedding"], record["histogram"] = look.embedding.numpy(), look.histogram.numpy()
        self._write("ab", record.tobytes())
        self.places.append(place)

    def entropy(self) -> Tensor:
        """(R,) float32, of each record."""
        return torch.from_numpy(self._records()["entropy"].astype(np.float32))

    def embedding(self) -> Tensor:
        """(R, K) float32, of each record. It is read from the file where it is used."""
        return torch.from_numpy(self._records()["embedding"])

    def histograms(self) -> Iterator[Tensor]:
        """(r, C, bins) float32 of some records at a time, in their order."""
        records = self._records()
        for start in range(0, len(records), _READ):
            yield torch.from_numpy(records["histogram"][start : start + _READ].astype(np.float32))

    def _records(self) -> npt.NDArray[Any]:
        assert self.kind is not None  # there is at least one
        # Copy on write: torch wants memory that it may write to.
        return np.memmap(self.path, dtype=self.kind, mode="c", shape=(len(self.places),))

    def _before(self) -> dict[str, Any] | None:
        """What the files say about themselves, if they are of the same; None for others, or without files."""
        if not self.note.exists() or not self.path.exists():
            return None
        try:
            before = json.loads(read_text(self.note, give="remove it"))
            sizes = {key: before.pop(key) for key in ("classes", "features")}
        except (ValueError, KeyError, AttributeError, TypeError, InputError):
            return None
        return {**before, **sizes} if before == self.about and all(_is_size(size) for size in sizes.values()) else None

    def _keep_whole_records(self) -> None:
        """Cut off what a kill has left of a record, and note which images have one."""
        assert self.kind is not None
        try:
            whole = self.path.stat().st_size // self.kind.itemsize
            with self.path.open("rb+") as file:
                file.truncate(whole * self.kind.itemsize)
        except OSError as error:
            raise unwritable(self.path, error) from error
        if whole:
            self.places = [0] * whole
            self.places = self._records()["place"].tolist()

    def _write(self, mode: str, data: bytes) -> None:
        try:
            with self.path.open(mode) as file:
                file.write(data)
        except OSError as error:
            raise unwritable(self.path, error) from error


def record_of(classes: int, features: int) -> np.dtype[Any]:
    """The record of a look: 4 bytes a feature, and 2 bytes a class and bin."""
    return np.dtype(
        [("place", "<i8"), ("entropy", "<f4"), ("embedding", "<f4", features), ("histogram", "<f2", (classes, BINS))]
    )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and 0 < value <= 65_536
