"""Paths and text files that a user names. What is unusable is one clear error, and nothing waits or fills memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from u2pl.errors import InputError, quoted

_LONGEST_NAME = 255  # bytes of one name in a path, on every common file system
_LONGEST = 4000  # bytes of a whole path
_LARGEST = 256 * 2**20  # bytes of a text file


def unusable(text: str | Path) -> str | None:
    """Why no file can have this path; None if one can."""
    raw = os.fsencode(text) if os.fspath(text).isprintable() else str(text).encode("utf-8", "surrogateescape")
    if not raw.strip():
        return "is empty"
    if any(byte < 32 or byte == 127 for byte in raw):
        return "holds control characters"
    longest = max(map(len, raw.split(b"/")))
    if longest > _LONGEST_NAME or len(raw) > _LONGEST:
        return f"is too long: {longest} bytes in one name, at most {_LONGEST_NAME} are possible"
    return None


def usable(text: str | Path, what: str = "the path") -> Path:
    """The path, with ``~`` as the home folder. Raises InputError that begins with ``what`` if no file can have it.

    The home folder of an unknown user stays as it is written: there is no such folder.
    """
    if why := unusable(text):
        raise InputError(f"{what} {quoted(str(text))} {why}; give another")
    return Path(os.path.expanduser(text))


def is_file(path: Path) -> bool:
    """Whether there is such a file, even if no file can have this path."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder, even if no folder can have this path."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or below it. False where that cannot be told."""
    with suppress(OSError):
        return path.resolve().is_relative_to(folder.resolve())
    return False


def argument(option: str) -> Callable[[str], Path]:
    """A parser of a path on the command line. It refuses paths that no file can have."""

    def parse(text: str) -> Path:
        if isinstance(text, str) and not text.strip():
            raise InputError(f"{option}: the path is empty; give one, or leave {option} out")
        if why := unusable(text):
            raise InputError(f"{option}: {quoted(str(text))} {why}; give another path")
        return Path(text)

    parse.__name__ = "path"  # in --help
    return parse


def output(option: str = "--out") -> Callable[[str], Path]:
    """A parser of a path that a command writes to. It also refuses one below a file."""
    parse = argument(option)

    def parse_output(text: str) -> Path:
        path = parse(text)
        for above in path.absolute().parents:
            try:
                inside = above.exists() and not above.is_dir()
            except OSError as error:
                raise InputError(f"{option} {path}: cannot write there ({error.strerror})") from error
            if inside:
                raise InputError(f"{option} {path}: cannot write there, {above} is a file; give another folder")
        return path

    parse_output.__name__ = "path"
    return parse_output


def read_bytes(path: Path, *, give: str, largest: int = _LARGEST) -> bytes:
    """The content of a regular file. Raises InputError, which ends in ``give``, for everything else.

    Devices and pipes are refused before they are opened: reading them may never end.
    """
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise InputError(f"{path} cannot be read (it is a folder); {give}")
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path} cannot be read (it is a device or a pipe, not a file); {give}")
        if found.st_size > largest:
            raise InputError(f"{path} cannot be read (it has {found.st_size >> 20} MiB, too many for this); {give}")
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a name that is too long, or with a NUL
        why = getattr(error, "strerror", None) or "its name is not possible"
        raise InputError(f"{path} cannot be read ({why}); {give}") from error


def read_text(path: Path, *, give: str, largest: int = _LARGEST) -> str:
    """The text of a UTF-8 file, without a byte order mark. Raises InputError, which ends in ``give``, otherwise."""
    data = read_bytes(path, give=give, largest=largest)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path} cannot be read (it is UTF-16); save it in UTF-8, or {give}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: cannot be read (it is not text in UTF-8); {give}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}, line {line}: cannot be read (it holds NUL bytes: no text in UTF-8); {give}")
    return text
