"""Loader processes that die, stall or lack memory, as real processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from u2pl.data.loading import fitting_workers, free_shared_memory, loader
from u2pl.errors import InputError

MIB = 2**20


class Numbers:
    """Items 0 to 9. At item 3 something happens in the process that reads it."""

    def __init__(self, happens: str = "", note: Path | None = None) -> None:
        self.happens, self.note = happens, note

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Tensor | InputError:
        if index == 3 and self.happens == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 3 and self.happens == "stuck":
            assert self.note is not None
            self.note.write_text(str(os.getpid()))
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        if index == 3 and self.happens == "bad file":
            return InputError("image x.jpg is missing")
        if index == 3 and self.happens == "bug":
            raise RuntimeError("something else")
        return torch.tensor(index)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_items_come_in_order(workers: int) -> None:
    assert [int(item) for item in loader(Numbers(), start=1, stride=3, workers=workers)] == [1, 4, 7]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_item_that_is_an_error_is_raised(workers: int) -> None:
    with pytest.raises(InputError, match=r"^image x\.jpg is missing$"):
        list(loader(Numbers("bad file"), workers=workers))


def test_a_killed_process_is_one_line() -> None:
    with pytest.raises(
        InputError, match=r"^data\.workers: loader process \d+ died, .*; a training goes on with --resume"
    ):
        list(loader(Numbers("killed"), workers=2))


def test_a_stuck_process_is_one_line_after_a_while_and_leaves_no_process(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=r"^data\.workers: no images came for 2 s; .*data\.timeout"):
        list(loader(Numbers("stuck", tmp_path / "pid"), workers=1, timeout=2))
    assert time.monotonic() - began < 30
    worker = Path("/proc") / (tmp_path / "pid").read_text()
    deadline = time.monotonic() + 20
    while worker.exists() and "Z" not in (worker / "stat").read_text().split()[2] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not worker.exists() or worker.joinpath("stat").read_text().split()[2] == "Z"


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="something else"):
        list(loader(Numbers("bug"), workers=1))


@pytest.mark.parametrize(
    ("free", "item", "processes", "expected"),
    [
        (None, MIB, 1, 8),
        (2**40, MIB, 1, 8),
        (64 * MIB, 8 * MIB, 1, 2),
        (64 * MIB, 8 * MIB, 2, 1),
        (64 * MIB, 40 * MIB, 1, 0),
    ],
)
def test_workers_fit_the_shared_memory(
    monkeypatch: pytest.MonkeyPatch, free: int | None, item: int, processes: int, expected: int
) -> None:
    monkeypatch.setattr("u2pl.data.loading.free_shared_memory", lambda: free)
    assert fitting_workers(8, item, processes) == expected


def test_the_shared_memory_of_this_machine() -> None:
    free = free_shared_memory()
    assert (free is not None) == Path("/dev/shm").exists()
    assert free is None or free > 0
