"""Files that annotation tools wrote -> checked records. None runs code, leaves a folder or fills memory."""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated as Marked
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, ValidationError

from u2pl.data.walking import files_below
from u2pl.errors import InputError, quoted
from u2pl.paths import read_bytes

_LARGEST = 2**31  # bytes of a file of annotations, and of all that a zip holds
_MEMBERS = 500_000  # files in a zip

#: A coordinate in pixels. The bounds keep arithmetic far from overflow.
Coordinate = Marked[float, Field(ge=-1e6, le=1e6)]
#: Height or width of an image.
Side = Marked[int, Field(ge=1, le=1_000_000)]


class Record(BaseModel):
    """A part of a json file. Keys that are not named are left alone."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)


AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


def one_of(**kinds: type) -> Discriminator:
    """Chooses between types by the kind of value in the json, so that an error is about the one that was meant."""

    def tag(value: object) -> str | None:
        return next((name for name, kind in kinds.items() if isinstance(value, kind)), None)

    return Discriminator(tag)


def parsed(kind: type[AnyRecord], path: Path, tool: str) -> AnyRecord:
    """A json file as a record. Raises InputError that names the file and the key for another or a damaged one."""
    give = f"export it from the tool again, as {tool}"
    data = read_bytes(path, give=give, largest=_LARGEST).removeprefix(b"\xef\xbb\xbf")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise InputError(f"{path}: {_why(error, tool)}; {give}, or name another --format") from error


def _why(error: ValidationError, tool: str) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "json_invalid":
        return f"is damaged: {first['msg']}"
    if first["type"] == "missing":
        return f"is no file of {tool}: the key {key} is missing"
    why = "it is of another kind" if first["type"] == "union_tag_not_found" else first["msg"]
    return f"is no file of {tool}: {key or 'all of it'} is {quoted(first['input'])}: {why}"


def xml_of(path: Path, tool: str) -> Any:
    """The root element of an xml file. Raises InputError for a damaged one, and for entities and document types."""
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError as error:
        raise InputError("xml files need the package defusedxml; run: pip install 'u2pl[formats]'") from error
    give = f"export it from the tool again, as {tool}"
    try:
        return fromstring(read_bytes(path, give=give, largest=_LARGEST), forbid_dtd=True)
    except DefusedXmlException as error:
        raise InputError(f"{path}: declares entities or a document type, which {tool} never does; {give}") from error
    except (ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: is damaged xml ({error}); {give}") from error


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The file or folder; of a zip, a folder with what it holds, as long as the context lasts.

    Raises InputError for a damaged zip, one with a password, names that lead out of it, and too much data.
    """
    if not path.is_file() or not zipfile.is_zipfile(path):  # to look into a pipe could take forever
        if path.suffix.lower() == ".zip" and path.is_file():
            raise InputError(f"{path} is a damaged zip; download it again")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="u2pl-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                _unpack(archive, Path(folder), path)
        except InputError:
            raise
        except Exception as error:  # a damaged file can raise anything, by the way in which it is packed
            if isinstance(error, OSError) and error.strerror:
                raise InputError(f"{path} cannot be unpacked into {folder} ({error.strerror})") from error
            raise InputError(f"{path} is a damaged or unreadable zip ({error}); download it again") from error
        yield Path(folder)


def _unpack(archive: zipfile.ZipFile, folder: Path, path: Path) -> None:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > _MEMBERS or sum(member.file_size for member in members) > _LARGEST:
        raise InputError(
            f"{path}: holds more than {_LARGEST >> 30} GiB or {_MEMBERS} files; unpack it yourself and give the folder"
        )
    for member in members:
        target = folder / inside(member.filename, str(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, target.open("wb") as file:  # zipfile reads no more than file_size
            shutil.copyfileobj(source, file)


def inside(name: str, where: str) -> str:
    """A path below a folder, with ``/``. Raises InputError, which begins with ``where``, if it leads out of it."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or not path.parts or "\0" in name:
        raise InputError(f"{where}: {quoted(name)} leads out of the folder; rename it, or repair the file")
    return str(path)


def the_file(place: Path, wanted: Callable[[Path], bool], what: str) -> Path:
    """The file itself, or the only one of its kind below a folder. Raises InputError if there is none, or several."""
    if place.is_file():
        return place
    found = some_files(place, wanted, what)
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(place)) for path in found[:3])
        raise InputError(f"{place} holds several {what} ({names}, ...); give one of them")
    return found[0]


def some_files(place: Path, wanted: Callable[[Path], bool], what: str) -> list[Path]:
    """The files of a kind below a folder. Raises InputError if there is none."""
    if not place.is_dir():
        raise InputError(f"{place} is missing or no folder; give what the tool exported")
    found, _ = files_below(place, lambda path: path.is_file() and wanted(path))
    if not found:
        raise InputError(f"{place} holds no {what}; give what the tool exported, or name another --format")
    return found


def is_json(path: Path) -> bool:
    """Whether a file is named as json."""
    return path.suffix.lower() == ".json"
