"""Pixels that processes share: however they are started, and whatever becomes of them."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from u2pl.data import shared_store
from u2pl.data.files import CachedSample, cached
from u2pl.data.loading import loader
from u2pl.data.shared_store import SharedStore
from u2pl.data.source import DataSource


def noise(number: int, shape: tuple[int, ...] = (5, 7, 3)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def fill(store: SharedStore, numbers: range) -> None:
    """In another process."""
    for number in numbers:
        assert np.array_equal(store.put(number, noise(number)), noise(number))


def die_writing(store: SharedStore) -> None:
    """Killed with the lock held, and pixels half written."""

    def killed(descriptor: int, data: memoryview, at: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    os.pwrite = killed
    store.put(0, noise(0))


class Counting:
    """A sample that notes in a file how often it is decoded."""

    name, has_mask, tags = "a", True, None

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.log = number, folder / f"{number}.log"

    def _note(self, kind: str) -> None:
        with self.log.open("a") as file:
            file.write(kind)

    def image(self) -> torch.Tensor:
        self._note("i")
        return torch.from_numpy(noise(self.number)).permute(2, 0, 1)

    def mask(self) -> torch.Tensor:
        self._note("m")
        return torch.from_numpy(noise(100 + self.number, (5, 7)))


class Pairs:
    """Each sample, again and again."""

    def __init__(self, samples: list[CachedSample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return 5 * len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        sample = self.samples[index % len(self.samples)]
        return sample.image().clone(), sample.mask().clone()


def test_arrays_come_back_as_they_were() -> None:
    store = SharedStore(4)
    assert store.get(0) is None
    for number, shape in enumerate([(5, 7, 3), (4, 9), (1, 1, 3)]):
        assert np.array_equal(store.put(number, noise(number, shape)), noise(number, shape))
    for number, shape in enumerate([(5, 7, 3), (4, 9), (1, 1, 3)]):
        assert np.array_equal(store.get(number), noise(number, shape))
        assert store.get(number).base is not None
    assert store.get(3) is None
    assert np.array_equal(store.put(0, noise(9)), noise(0))  # the first stays


def test_pieces_are_filled_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_store, "PIECE", 2 * 4096)
    store = SharedStore(12)
    sizes = [(50, 60), (40, 50), (30, 50, 3), (70, 100), (1, 1)]  # the fourth begins a piece
    for number, shape in enumerate(sizes):
        store.put(number, noise(number, shape))
    assert store.put(5, noise(5, (100, 100))).shape == (100, 100)
    assert store.get(5) is None  # larger than a piece
    assert all(np.array_equal(store.get(number), noise(number, shape)) for number, shape in enumerate(sizes))


@pytest.mark.parametrize(
    "method",
    ["fork", pytest.param("spawn", marks=pytest.mark.slow), pytest.param("forkserver", marks=pytest.mark.slow)],
)
def test_what_a_started_process_keeps_is_here(method: str) -> None:
    store = SharedStore(40)
    store.put(7, noise(7))
    starting = multiprocessing.get_context(method)
    processes = [starting.Process(target=fill, args=(store, range(start, 40, 2))) for start in (0, 1, 0)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert all(np.array_equal(store.get(number), noise(number)) for number in range(40))
    assert store._index[shared_store._END] == 40 * noise(0).size  # nothing is kept twice


def test_threads_of_a_process_do_not_write_to_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shared_store.SharedStore._write

    def slowly(self: SharedStore, number: int, values: np.ndarray) -> None:
        place = int(self._index[0])
        time.sleep(0.002)
        assert int(self._index[0]) == place  # no other thread has written meanwhile
        whole(self, number, values)

    monkeypatch.setattr(shared_store.SharedStore, "_write", slowly)
    store = SharedStore(40)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: fill(store, range(number, 40, 4)), range(4)))
    for number in range(40):
        assert np.array_equal(store.get(number), noise(number))


def test_a_process_that_is_killed_while_it_writes_stops_no_other() -> None:
    store = SharedStore(2)
    process = multiprocessing.get_context("fork").Process(target=die_writing, args=(store,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert store.get(0) is None
    assert np.array_equal(store.put(0, noise(0)), noise(0))
    assert np.array_equal(store.get(0), noise(0))


def test_loader_processes_decode_an_image_once(tmp_path: Path) -> None:
    samples = [Counting(number, tmp_path) for number in range(6)]
    source = cached(DataSource(("a", "b"), samples[:2], samples[2:5], samples[5:]))
    everything = [*source.labeled, *source.unlabeled, *source.val]
    for _ in range(2):  # the second time with new processes
        drawn = list(loader(Pairs(everything), workers=2))
        for index, (image, mask) in enumerate(drawn):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), noise(index % 6))
            assert np.array_equal(mask.numpy(), noise(100 + index % 6, (5, 7)))
    # Two processes may meet at an image that neither has decoded yet.
    assert all(len(sample.log.read_text()) <= 4 for sample in samples)
    assert sum(len(sample.log.read_text()) for sample in samples) < 20


def test_no_room_is_said_once_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = SharedStore(4)
    store.put(0, noise(0))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(2):
        assert np.array_equal(store.put(1, noise(1)), noise(1))
        assert np.array_equal(store.put(2, noise(2)), noise(2))
    assert store.get(1) is store.get(2) is None
    assert np.array_equal(store.get(0), noise(0))
    assert caplog.messages == ["u2pl: data.cache: no room for more decoded images (No space left on device)"]


def test_where_no_file_can_be_made(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refused(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "memfd_create", refused, raising=False)
    monkeypatch.setattr(shared_store.tempfile, "TemporaryFile", refused)
    store = SharedStore(1)
    assert np.array_equal(store.put(0, noise(0)), noise(0))
    assert store.get(0) is None
    assert caplog.messages == ["u2pl: data.cache: no room for decoded images (No space left on device)"]


def test_a_temporary_file_where_there_are_none_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(shared_store.tempfile, "tempdir", str(tmp_path))
    store = SharedStore(1)
    store.put(0, noise(0))
    assert np.array_equal(store.get(0), noise(0))
    assert list(tmp_path.iterdir()) == []  # it has no name, so nothing is left after a kill


def test_where_no_file_can_be_locked_each_process_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_store, "fcntl", None)
    store = SharedStore(2)
    first = store.put(0, noise(0))
    assert store.get(0) is first
    assert store.get(1) is None


def test_it_travels_empty_and_is_freed() -> None:
    store = SharedStore(1000)
    store.put(0, noise(0))
    descriptor = store._descriptor
    copy = pickle.loads(pickle.dumps(store))
    assert copy.get(0) is None
    assert len(pickle.dumps(store)) < 200
    del store
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
