"""Loader processes: items read ahead, within the shared memory that the machine has."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from collections.abc import Iterator, Set
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from u2pl.errors import InputError
from u2pl.threads import bound_cores, unbind

T_co = TypeVar("T_co", covariant=True)

#: Seconds to wait for an item. A network drive may sleep for a minute; a lost item never comes.
TIMEOUT = 300
_SHARED = "/dev/shm"  # where loader processes put items, on Linux
_AHEAD = 3  # items of each process at a time: two ready and one in work
_USABLE = 0.8  # of the free shared memory


class Items(Protocol[T_co]):
    """A data set whose items may be errors."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> T_co | InputError: ...


def loader(
    dataset: Items[T_co],
    *,
    start: int = 0,
    stride: int = 1,
    workers: int = 0,
    timeout: int = TIMEOUT,
    pin_memory: bool = False,
) -> Iterator[T_co]:
    """Yield items ``start, start + stride, ...`` in order, prefetched by ``workers`` processes.

    Raises InputError, in this process, if an item is one, if no item comes within ``timeout`` seconds, and if a loader
    process dies.
    """
    refuse_import()
    source: Any = dataset
    loading = DataLoader(
        source,
        batch_size=None,
        sampler=range(start, len(dataset), stride),
        num_workers=workers,
        timeout=timeout if workers else 0,
        pin_memory=pin_memory,
        collate_fn=_as_is,
        worker_init_fn=partial(_on_any_core, bound_cores()),
        # A loader draws a base seed when it starts; this must not advance the global generator.
        generator=torch.Generator(),
    )
    items = iter(loading)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except RuntimeError as error:
            _kill_workers(items)
            raise _lost(error, timeout) from error
        if isinstance(item, InputError):
            raise item
        yield item


def refuse_import() -> None:
    """End this process if it is a loader process that still imports the user's script.

    Where processes are not forked, they import the script anew. Without a guard it would train in each of them.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(
            'u2pl: loader processes import this script again, so put what it does below `if __name__ == "__main__":`'
        )


def fitting_workers(workers: int, item_bytes: int, processes: int = 1) -> int:
    """At most ``workers`` loader processes, so many that their items fit into the free shared memory.

    Args:
        item_bytes: size of the largest item.
        processes: that each have as many loader processes on this machine.
    """
    free = free_shared_memory()
    if free is None:
        return workers
    return max(0, min(workers, int(_USABLE * free) // max(1, _AHEAD * item_bytes * processes)))


def free_shared_memory() -> int | None:
    """Free shared memory in bytes; None where loader processes do not depend on it."""
    try:
        state = os.statvfs(_SHARED)
    except (AttributeError, OSError):
        return None
    return state.f_bavail * state.f_frsize


def _kill_workers(items: Any) -> None:
    """End the loader processes at once. A stuck one would not end when asked, and keep this process waiting."""
    if getattr(items, "_worker_pids_set", False):  # else torch takes their end for an error, at any later moment
        signal_handling._remove_worker_pids(id(items))
        items._worker_pids_set = False
    for worker in getattr(items, "_workers", ()):
        worker.kill()


def _lost(error: RuntimeError, timeout: int) -> Exception:
    """What to say about an item that does not come. Other errors stay what they are."""
    text = str(error)
    if "timed out" in text:
        return InputError(
            f"data.workers: no images came for {timeout} s; a loader process is stuck, the disk is slow (raise "
            f"data.timeout), or {_SHARED} is full; data.workers=0 loads without other processes"
        )
    if "exited unexpectedly" in text or "killed by signal" in text or "shared memory" in text:
        process = re.search(r"pid\(s\) ([\d, ]+)|pid (\d+)", text)
        named = f" {(process[1] or process[2]).strip()}" if process else ""
        return InputError(
            f"data.workers: loader process{named} died, most likely out of memory; lower data.workers or set "
            "data.cache=false; a training goes on with --resume"
        )
    return error


def _on_any_core(cores: Set[int], worker: int) -> None:
    unbind(cores)


def _as_is(item: Any) -> Any:
    return item
