"""Computing threads on cores of their own, where the system allows it (Linux). Elsewhere nothing happens."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

#: How long a computing thread of GNU OpenMP waits for its next task before it gives its core away, in rounds of a loop.
#: The library's own 300 000 keep the core from other processes. With 0, each task pays for waking the thread.
SPIN = ("GOMP_SPINCOUNT", "10000")

_cores: Set[int] = frozenset()  # of this process, while its threads are bound


def spin_shortly() -> None:
    """Let waiting threads give their cores away soon, unless the user has a rule. Call it before torch is imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(*SPIN)


def own_cores() -> Set[int]:
    """The cores that this thread may use; empty where the system does not say."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def own_threads() -> Set[int]:
    """The system's numbers of this process's threads; empty where the system does not say."""
    with suppress(OSError):
        return {int(entry.name) for entry in Path("/proc/self/task").iterdir()}
    return set()


@contextmanager
def bound(threads: Iterable[int]) -> Iterator[None]:
    """Give this thread and each of the ``threads`` a core of its own. At the end all may use all cores again.

    New threads and processes inherit the core of the thread that starts them: call :func:`unbind` in them.
    """
    global _cores  # noqa: PLW0603
    _cores, threads = own_cores(), [0, *threads]
    try:
        for thread, core in zip(threads, sorted(_cores), strict=True):
            _use(thread, {core})
        yield
    finally:
        for thread in threads:
            _use(thread, _cores)
        _cores = frozenset()


def bound_cores() -> Set[int]:
    """All cores of the threads that are bound at this moment; empty without any."""
    return _cores


def unbind(cores: Set[int]) -> None:
    """Let this thread, and what it starts from now on, use all the ``cores`` of :func:`bound_cores`."""
    if cores:
        _use(0, cores)


def _use(thread: int, cores: Set[int]) -> None:
    with suppress(OSError):  # it has ended, or the system forbids it
        os.sched_setaffinity(thread, cores)
