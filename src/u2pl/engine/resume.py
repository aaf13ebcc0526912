"""The state of a stopped run: two checkpoints, so that a damaged one costs a few steps and not the run."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from u2pl.engine.checkpoint import write_atomically
from u2pl.errors import InputError

#: The checkpoint of the last save, and of the save before it.
CHECKPOINTS = ("last.ckpt", "previous.ckpt")
#: Parts of a state that checkpoints of earlier versions do not have.
_NEWER = ("data", "unscored", "supervised")
_LITTLE = 2**24  # bytes of free space with which a disk is full


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Save ``state`` (objects with a ``state_dict``, and plain values) for :func:`load_state`.

    The former checkpoint stays beside it. Raises InputError naming the file if it cannot be written.
    """
    plain = {name: value.state_dict() if hasattr(value, "state_dict") else value for name, value in state.items()}
    last, previous = (folder / name for name in CHECKPOINTS)

    def write(partial: Path) -> None:
        try:
            torch.save(plain, partial)
        except RuntimeError as error:  # torch's writer does not say that the disk is full
            full = shutil.disk_usage(folder).free < _LITTLE
            reason = os.strerror(errno.ENOSPC) if full else str(error).splitlines()[0]
            raise OSError(errno.ENOSPC if full else errno.EIO, reason) from error

    def rotate() -> None:
        if last.exists():
            _keep(last, previous)

    write_atomically(last, write, before=rotate)


def load_state(folder: Path, state: dict[str, Any]) -> str | None:
    """Restore what :func:`save_state` saved last into the same objects and values.

    If the last checkpoint is damaged or missing, the one before it is used. Returns a line that says so. Raises
    InputError if there is a checkpoint but none can be read.
    """
    path, saved, note = _newest(folder, mmap=False)
    if saved is None:
        return None
    try:
        for name, value in state.items():
            if name not in saved and name in _NEWER:
                continue
            if hasattr(value, "load_state_dict"):
                value.load_state_dict(saved[name])
            else:
                state[name] = saved[name]
    except Exception as error:  # a state of other parts can raise anything
        raise InputError(
            f"{path} cannot be resumed from ({_reason(error)}); remove it to start this run anew"
        ) from error
    return note


def has_state(folder: Path) -> bool:
    """Whether a folder holds a checkpoint, readable or not."""
    return any((folder / name).exists() for name in CHECKPOINTS)


def saved_value(folder: Path, name: str) -> Any:
    """One plain value of the checkpoint that :func:`load_state` would use; None if there is none, or no such value."""
    _, saved, _ = _newest(folder, mmap=True)
    return None if saved is None else saved.get(name)


def _newest(folder: Path, *, mmap: bool) -> tuple[Path, dict[str, Any] | None, str | None]:
    """The newest checkpoint that can be read, its contents, and a line if that is not the last one.

    ``mmap``: tensors stay on the disk until they are used.
    """
    problems: list[str] = []
    for name in CHECKPOINTS:
        path = folder / name
        if not path.exists():
            continue
        try:
            _check_sums(path)
            saved = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
            step = int(saved["step"])
        except Exception as error:  # unpickling a damaged file can raise anything
            problems.append(f"{path} is damaged ({_reason(error)})")
            continue
        if name == CHECKPOINTS[0]:
            return path, saved, None
        problem = problems[0] if problems else f"{folder / CHECKPOINTS[0]} is missing"
        return path, saved, f"{problem}; resuming from step {step} of {name}"
    if problems:
        raise InputError(f"{problems[0]} and cannot be resumed from; remove it to start this run anew")
    return folder, None, None


def _check_sums(path: Path) -> None:
    """Compare the contents of a checkpoint, which is a zip archive, with its CRC-32 sums. Raises ValueError."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} differs")


def _keep(path: Path, copy: Path) -> None:
    """Make ``copy`` another name of a file, in place of the file that had it. The file itself is never missing."""
    link = copy.with_name(f".{copy.name}.partial")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # not every file system has links
        os.replace(path, copy)
        return
    os.replace(link, copy)


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
