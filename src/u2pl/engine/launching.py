"""The processes of a run: they begin together, and when one of them is lost, all of them end with one line."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning_fabric import Fabric
from torch import distributed

from u2pl.engine.machine import is_main_process
from u2pl.errors import InputError

_POLL = 0.5  # seconds between two looks at the other processes
_PATIENCE = 10.0  # seconds for the main thread to end by itself
_FINISH = 60.0  # seconds for the other processes to end after the last step
_RESUME = "the others end; `train --resume` goes on from the last save"
#: What gloo and NCCL say when a process has gone. torch raises a plain RuntimeError for some of it.
_LOST = re.compile(
    r"connection (closed|reset|refused)|broken pipe|closed by peer|nccl|gloo|remote process|timed out", re.I
)

_watch: Watch | None = None  # the processes of a command stay the same for all its runs
_depth = 0  # of contexts inside each other


def launch(fabric: Fabric) -> None:
    """Start the other processes and connect them. Raises InputError if they cannot connect."""
    global _watch  # noqa: PLW0603
    if fabric.world_size == 1:
        return
    if _watch is not None:  # another run of the same command: the processes are there
        fabric.launch()
        return
    environment: Any = fabric.strategy.cluster_environment  # type: ignore[attr-defined]
    external = environment.creates_processes_externally
    if environment.node_rank() == 0 and environment.local_rank() == 0 and not under_torchrun():
        check_port()
    children = getattr(fabric.strategy.launcher, "procs", [])
    # A process that Fabric has started runs the same command, with LOCAL_RANK set.
    parent = os.getppid() if external and not under_torchrun() and environment.local_rank() > 0 else None
    _watch = Watch(children, parent=parent, speaks=environment.local_rank() <= 1)
    _watch.start()
    try:
        fabric.launch()
    except (distributed.DistNetworkError, distributed.DistStoreError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"the processes of this run cannot connect at {where} ({reason}); check MASTER_ADDR and MASTER_PORT"
        ) from error
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":  # Fabric's own watch would kill this process without a word
            thread._child_processes = []  # type: ignore[attr-defined]


def under_torchrun() -> bool:
    """Whether torchrun has started this process, and looks after it."""
    return distributed.is_available() and distributed.is_torchelastic_launched()


def check_port() -> None:
    """Raise InputError if MASTER_PORT is set and cannot be opened here, before another process is started."""
    port = os.environ.get("MASTER_PORT")
    if port is None:
        return
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", int(port)))
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "not a port"
        raise InputError(
            f"MASTER_PORT: {port} cannot be used ({reason}); set a free one, the same on all machines, or unset it on "
            "a single machine"
        ) from error


@contextmanager
def ending_together() -> Iterator[None]:
    """Around a training, or as its decorator: no process of the run outlives it, and only one reports an error.

    Of contexts inside each other, the outermost counts: several trainings share their processes.
    """
    global _depth  # noqa: PLW0603
    _depth += 1
    try:
        if _depth > 1:
            yield
        else:
            with _outermost():
                yield
    finally:
        _depth -= 1


@contextmanager
def _outermost() -> Iterator[None]:
    try:
        yield
    except InputError:
        if _watch is None and under_torchrun() and not is_main_process():
            raise SystemExit(2) from None  # the main process finds the same and reports it
        if _watch is not None:
            _watch.leave()
        raise
    except Exception as error:
        if _watch is not None and isinstance(error, RuntimeError) and _LOST.search(str(error)):
            _watch.explain(error)
        if _watch is not None:
            _watch.leave()
        raise
    except BaseException as stop:  # a signal, which every process gets
        if _watch is not None and not is_main_process():
            raise SystemExit(128 + getattr(stop, "number", 2)) from None
        if _watch is not None:
            _watch.finish()
        raise
    if _watch is not None:
        _watch.finish()


class Watch(threading.Thread):
    """Looks at the processes that this one has started, or at the one that has started it.

    Args:
        children: processes that this one has started; the list may fill up later.
        parent: the id of the process that has started this one; None: it is not of this run.
        speaks: whether this process may report that its parent is lost.
    """

    def __init__(self, children: Sequence[subprocess.Popen[bytes]], *, parent: int | None, speaks: bool) -> None:
        super().__init__(daemon=True, name="process-watch")
        self.children, self.parent, self.speaks = children, parent, speaks
        self.found = threading.Event()  # a process is lost
        self.done = threading.Event()  # this process ends as it should
        self.message, self.code = "", 2

    def run(self) -> None:
        """Wait until a process is lost; then end the others, and this one if it does not end by itself."""
        while not self.done.wait(_POLL):
            if self._lost():
                break
        else:
            return
        self.found.set()
        self.end_children()
        if not self.done.wait(_PATIENCE):  # the main thread waits for the lost process
            if self.message:
                sys.stderr.write(f"u2pl: {self.message}\n")
                sys.stderr.flush()
            os._exit(self.code)

    def _lost(self) -> bool:
        """Whether a process is lost. Notes what to say about it."""
        if self.parent is not None and os.getppid() != self.parent:
            self.message = f"the first process of this run has ended, so {_RESUME}" if self.speaks else ""
            return True
        codes = [child.poll() for child in self.children]
        for number, code in enumerate(codes, start=1):
            if code:
                self.code = 2 if code < 0 else code  # by a signal
                stopped = f"was killed (signal {-code})" if code < 0 else f"was stopped (signal {code - 128})"
                how = stopped if code < 0 or code > 128 else "has failed, as it says above"
                self.message = "" if code == 2 else f"process {number} of this run {how}, so {_RESUME}"
                return True
        return False

    def explain(self, error: BaseException) -> None:
        """After a failed exchange: raise InputError or SystemExit, as soon as it is known which process is lost."""
        if not self.found.wait(_PATIENCE):
            self.leave()
            if not is_main_process():
                raise SystemExit(2) from error
            where = "a process of this run on another machine"
            raise InputError(f"{where} has ended or does not answer, so {_RESUME}") from error
        self.done.set()
        if self.message:
            raise InputError(self.message) from error
        raise SystemExit(self.code) from error

    def leave(self) -> None:
        """Before this process reports an error: end those that it has started, or let its parent report first."""
        if self.parent is not None:
            self.found.wait(3 * _POLL)
            time.sleep(_POLL)  # the parent ends this process if it fails, too
        self.done.set()
        self.end_children()

    def finish(self) -> None:
        """After the last step: wait for the processes that this one has started."""
        self.done.set()
        until = time.monotonic() + _FINISH
        for child in self.children:
            try:
                child.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                break
        self.end_children()

    def end_children(self) -> None:
        """Kill what still runs: a process that waits for a lost one does not react to less."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
        for child in self.children:
            child.wait()
