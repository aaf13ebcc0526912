"""The commands `u2pl splits`: fetch and check the published split files, or draw new ones in the same layout."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.request import urlopen

import yaml

from u2pl.build import build_source
from u2pl.config.schema import Config
from u2pl.errors import InputError, quoted

_LARGEST = 2**24  # bytes of a list
_TIMEOUT = 20  # seconds to wait for the server


@dataclass(frozen=True)
class Published:
    """What is known about the published lists of a data set, apart from the lists themselves.

    For each N of ``labeled``, ``N/labeled.txt`` and ``N/unlabeled.txt`` together list the training images.
    """

    url: str  #: the lists are at URL/NAME/FILE
    images: int  #: training images
    images_sha256: str  #: of their sorted ids, joined by line feeds
    val: int  #: ids in val.txt
    labeled: Sequence[int]
    sha256: Mapping[str, str]  #: checksums of files, by name; some files have none

    def counts(self) -> dict[str, int]:
        """Number of ids of each file."""
        counts = {"val.txt": self.val}
        for labeled in self.labeled:
            counts |= {f"{labeled}/labeled.txt": labeled, f"{labeled}/unlabeled.txt": self.images - labeled}
        return counts


def published_splits() -> dict[str, Published]:
    """The published lists by name: pascal, cityscapes."""
    text = (resources.files("u2pl.commands") / "splits.yaml").read_text(encoding="utf-8")
    return {name: Published(**entry) for name, entry in yaml.safe_load(text).items()}


def fetch_splits(name: str, out: Path, *, url: str | None = None, known: Mapping[str, Published] | None = None) -> int:
    """Fetch the published lists of a data set into ``out/name`` and return the number of files.

    Args:
        url: another server, with the lists at url/name/FILE.
        known: the expected files; default: :func:`published_splits`.

    Raises InputError, and writes nothing, if a file cannot be fetched or is not the published one, or if a different
    file with its name exists.
    """
    known = published_splits() if known is None else known
    if name not in known:
        raise InputError(f"there are no published splits of {quoted(name)} (known: {', '.join(known)})")
    published = known[name]
    address = f"{(url or published.url).rstrip('/')}/{name}"
    files = {file: _download(f"{address}/{file}") for file in published.counts()}
    verify_splits(files, published, address)
    _write(files, out / name)
    return len(files)


def verify_splits(files: Mapping[str, bytes], published: Published, address: str) -> None:
    """Raise InputError, naming the file, unless the files match the published ones as far as these are known.

    Without a known checksum, the number of ids must match. Labeled and unlabeled images must not overlap, and together
    must be exactly the training images.
    """
    ids = {file: _lines(content) for file, content in files.items()}
    for file, count in published.counts().items():
        if published.sha256.get(file) not in (None, hashlib.sha256(files[file]).hexdigest()):
            raise InputError(f"{address}/{file} is not the published file: its checksum differs; nothing was written")
        if not len(ids[file]) == len(set(ids[file])) == count:
            raise InputError(
                f"{address}/{file} is not the published file: it lists {len(set(ids[file]))} images on "
                f"{len(ids[file])} lines, not {count}; nothing was written"
            )
    for labeled in published.labeled:
        images = sorted([*ids[f"{labeled}/labeled.txt"], *ids[f"{labeled}/unlabeled.txt"]])
        if hashlib.sha256("\n".join(images).encode()).hexdigest() != published.images_sha256:
            raise InputError(
                f"{address}/{labeled}: labeled.txt and unlabeled.txt together do not list each of the "
                f"{published.images} training images once; nothing was written"
            )


def draw_splits(config: Config, counts: Sequence[int], out: Path) -> int:
    """Write ``out/COUNT/labeled.txt`` and ``unlabeled.txt`` for each count and return the number of files.

    They list the images that ``data.labeled=COUNT`` draws with the seed of the configuration. Raises InputError for a
    data set without files, a count that is not possible, or a different file with the same name.
    """
    if config.data.name == "scenes":
        raise InputError("data.name: scenes has no files that a split could list; choose a data set of files")
    files = {}
    for count in counts:
        data = config.data.model_copy(
            update={"labeled": count, "unlabeled": None, "pseudo_masks": None, "cache": False}
        )
        source = build_source(data, seed=config.seed)
        for part, samples in (("labeled", source.labeled), ("unlabeled", source.unlabeled)):
            if samples:
                files[f"{count}/{part}.txt"] = "".join(f"{sample.name}\n" for sample in samples).encode()
    _write(files, out)
    return len(files)


def read_counts(text: str) -> list[int]:
    """Parse counts such as ``23,46,92``. Raises InputError for anything else."""
    try:
        return [int(count) for count in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"--labeled {quoted(text)}: should be counts with commas between them, such as 46,92"
        ) from error


def _lines(content: bytes) -> list[str]:
    lines = (line.strip() for line in content.decode(errors="replace").splitlines())
    return [line for line in lines if line]


def _download(address: str) -> bytes:
    try:
        with urlopen(address, timeout=_TIMEOUT) as answer:
            content: bytes = answer.read(_LARGEST + 1)
            if len(content) > _LARGEST:
                raise InputError(f"{address} is larger than any published list; name another server with --url")
            return content
    except HTTPError as error:
        why = f"the server answers {error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:  # no network, a broken answer, no URL
        why = str(getattr(error, "reason", "") or error)
    raise InputError(f"{address} cannot be fetched ({why}); check the connection, or name another server with --url")


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write all files or none: first into a temporary folder in the same place."""
    beside = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    try:
        with TemporaryDirectory(prefix=".splits-", dir=beside) as stage:
            for file, content in files.items():
                path, place = Path(stage) / file, folder / file
                if place.exists() and place.read_bytes() != content:
                    raise InputError(f"{place} exists with other content; remove it or choose another --out")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            for file in files:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(stage) / file, folder / file)
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror}); choose another --out") from error
