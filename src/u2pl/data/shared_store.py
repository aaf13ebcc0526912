"""Decoded pixels in memory that loader processes share: an image is decoded once, not once in each of them.

The memory is that of a file without a name, so it is free when the last process ends, in whatever way.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import context, reduction
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import fcntl
except ImportError:  # not on every system; there, each process keeps its own pixels
    fcntl = None  # type: ignore[assignment]

_LOG = logging.getLogger(__name__)  # a warning is one line on stderr, in loader processes too

#: Pixels lie in pieces of this size, which a process maps when it first reads there. Larger images are not kept.
PIECE = 2**30
_END, _FULL, _HEAD = 0, 1, 2  # of the index: where the next pixels go; whether there was no room; its length
_ENTRY = 4  # numbers of an array: its place + 1 (0: not kept), height, width, channels (0: a mask)


class SharedStore:
    """Holds arrays of uint8 by number, from 0 to ``count - 1``, for this process and those that it starts.

    Processes may be forked, spawned or served. Where memory runs out, arrays that are not kept yet are decoded again at
    each read, and one line says so.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._attach(-1 if fcntl is None else _unnamed_file())

    def _attach(self, descriptor: int) -> None:
        self._descriptor, self._threads = descriptor, threading.Lock()
        self._own: dict[int, npt.NDArray[np.uint8]] = {}
        self._pieces: dict[int, mmap.mmap] = {}
        self._index: npt.NDArray[np.int64] | None = None
        size = 8 * (_HEAD + _ENTRY * self.count)
        self._first = -(-size // PIECE) * PIECE  # where pixels begin
        with suppress(OSError):  # there is neither memory nor a folder for temporary files
            if descriptor >= 0:
                self._grow(self._first)
                self._index = np.frombuffer(mmap.mmap(descriptor, size), dtype=np.int64)

    def get(self, number: int) -> npt.NDArray[np.uint8] | None:
        """The array of a number; None if it is not kept. All processes have the same bytes: do not write into it."""
        if self._index is None:
            return self._own.get(number)
        place, height, width, channels = self._entry(number).tolist()
        if place == 0:
            return None
        piece, offset = divmod(place - 1, PIECE)
        shape = (height, width, channels) if channels else (height, width)
        try:
            memory = self._piece(piece)
        except OSError:  # no room for addresses
            return None
        return np.frombuffer(memory, np.uint8, math.prod(shape), offset).reshape(shape)

    def put(self, number: int, values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Keep an array (H, W) or (H, W, C) if there is room. Returns the one that is kept, or ``values``."""
        if self._index is None:
            return self._own.setdefault(number, values) if fcntl is None else values
        if self._index[_FULL] or values.nbytes > PIECE:
            return values
        with self._locked():
            if self._entry(number)[0] == 0:  # else another process was first
                try:
                    self._write(number, values)
                except OSError as error:
                    self._index[_FULL] = 1
                    _LOG.warning("u2pl: data.cache: no room for more decoded images (%s)", error.strerror)
                    return values
        kept = self.get(number)
        return values if kept is None else kept

    def _write(self, number: int, values: npt.NDArray[np.uint8]) -> None:
        """Raises OSError if there is no room. Mapped memory that is assigned to would end the process instead."""
        assert self._index is not None
        place = int(self._index[_END])
        if place % PIECE + values.nbytes > PIECE:
            place += PIECE - place % PIECE
        height, width, *channels = values.shape
        entry = self._entry(number)
        entry[1:] = height, width, channels[0] if channels else 0
        self._grow(self._first + -(-(place + values.nbytes) // PIECE) * PIECE)
        data, at = memoryview(np.ascontiguousarray(values).data).cast("B"), self._first + place
        while data:
            written = os.pwrite(self._descriptor, data, at)
            data, at = data[written:], at + written
        self._index[_END] = place + values.nbytes
        entry[0] = place + 1  # last: from now on others read it

    def _grow(self, size: int) -> None:
        """Let the file have at least this size. What is not written to takes no memory."""
        if os.fstat(self._descriptor).st_size < size:
            os.truncate(self._descriptor, size)

    def _entry(self, number: int) -> npt.NDArray[np.int64]:
        assert self._index is not None
        return self._index[_HEAD + _ENTRY * number :][:_ENTRY]

    def _piece(self, number: int) -> mmap.mmap:
        if number not in self._pieces:
            self._pieces[number] = mmap.mmap(self._descriptor, PIECE, offset=self._first + number * PIECE)
        return self._pieces[number]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time, and one of its threads. The system frees the lock of a process that is killed."""
        with self._threads:  # the system's lock is for processes: it lets all threads of one in
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._index is not None and context.get_spawning_popen() is not None:
            return _received, (self.count, reduction.DupFd(self._descriptor))
        return SharedStore, (self.count,)  # to elsewhere, it travels empty

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            with suppress(OSError):
                os.close(self._descriptor)


def _received(count: int, duplicate: Any) -> SharedStore:
    """The store of the process that has started this one."""
    store = SharedStore.__new__(SharedStore)
    store.count = count
    store._attach(duplicate.detach())
    return store


def _unnamed_file() -> int:
    """A file in memory where the system has such files, else in the folder for temporary ones; -1: neither works."""
    if hasattr(os, "memfd_create"):
        with suppress(OSError):
            return os.memfd_create("u2pl-cache", os.MFD_CLOEXEC)
    try:
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    except OSError as error:
        _LOG.warning("u2pl: data.cache: no room for decoded images (%s)", error.strerror)
        return -1
