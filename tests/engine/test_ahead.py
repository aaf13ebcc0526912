"""Work ahead: order, bounds, errors, and what happens when nobody wants the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from u2pl.engine.ahead import ahead


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.001 * (number * 7 % 5))  # later ones end earlier
        return number**2

    assert list(ahead(work, range(40), threads=threads, limit=10)) == [number**2 for number in range(40)]
    assert list(ahead(work, [], threads=threads, limit=10)) == []


class Watched:
    """Counts what is held: items begun or waiting whose results are not taken."""

    def __init__(self, costs: list[int], gate: threading.Event | None = None) -> None:
        self.costs, self.gate, self.given = costs, gate, 0
        self.threads: dict[int, int] = {}
        self.running = 0
        self.beside: dict[int, int] = {}
        self.lock = threading.Lock()

    def items(self) -> Iterator[int]:
        for number in range(len(self.costs)):
            self.given += 1
            yield number

    def work(self, number: int) -> int:
        with self.lock:
            self.running += 1
            self.beside[number] = self.running
        self.threads[number] = threading.get_ident()
        if self.gate is not None:
            assert self.gate.wait(20)
        time.sleep(0.002)
        with self.lock:
            self.running -= 1
        return number

    def cost(self, number: int) -> int:
        return self.costs[number]


def test_what_is_held_never_costs_more_than_the_limit() -> None:
    watched, taken, held = Watched([3, 1, 4, 1, 5, 2, 2, 2, 6, 1, 1, 1, 1, 1, 1, 1] * 3), 0, []
    for number in ahead(watched.work, watched.items(), threads=4, limit=7, cost=watched.cost):
        assert number == taken
        # The last one given may still wait for its place.
        held.append(sum(watched.costs[taken : watched.given - 1]))
        taken += 1
    assert taken == len(watched.costs)
    assert max(held) <= 7
    assert max(watched.beside.values()) > 1  # several at a time


def test_few_items_are_held_however_little_they_cost() -> None:
    gate = threading.Event()
    watched = Watched([0] * 100, gate)
    threading.Timer(0.2, gate.set).start()
    results = ahead(watched.work, watched.items(), threads=2, limit=10, cost=watched.cost)
    assert next(results) == 0
    assert watched.given <= 2 * 4 + 1
    results.close()


def test_an_item_beyond_the_limit_is_worked_on_alone_and_here() -> None:
    watched = Watched([1, 1, 1, 9, 1, 1])
    assert list(ahead(watched.work, watched.items(), threads=3, limit=4, cost=watched.cost)) == list(range(6))
    assert watched.beside[3] == 1
    assert watched.threads[3] == threading.get_ident()
    assert threading.get_ident() not in {watched.threads[number] for number in (0, 1, 2, 4, 5)}


def test_an_error_comes_where_the_result_would() -> None:
    def work(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    seen: list[int] = []
    results = ahead(work, range(9), threads=2, limit=4)
    with pytest.raises(ValueError, match="three"):
        seen.extend(results)  # one after the other
    assert seen == [0, 1, 2]


def test_an_error_of_the_items_comes_after_the_results_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("five")

    def work(number: int) -> int:
        time.sleep(0.02)
        return number

    seen: list[int] = []
    results = ahead(work, items(), threads=1, limit=100)
    with pytest.raises(ValueError, match="five"):
        seen.extend(results)
    assert seen == [0, 1, 2, 3, 4]


def test_work_that_ran_out_of_memory_is_repeated_alone_and_here() -> None:
    tried: list[tuple[int, int, int]] = []
    running, lock = set[int](), threading.Lock()

    def work(number: int) -> int:
        with lock:
            running.add(number)
            tried.append((number, threading.get_ident(), len(running)))
        time.sleep(0.01)
        with lock:
            running.discard(number)
        if number in (1, 2) and threading.get_ident() != here:
            raise MemoryError
        return number

    here = threading.get_ident()
    again = lambda error: isinstance(error, MemoryError)  # noqa: E731
    assert list(ahead(work, range(8), threads=3, limit=6, again=again)) == list(range(8))
    repeated = [each for each in tried if each[1] == here]
    assert repeated == [(1, here, 1), (2, here, 1)]
    with pytest.raises(MemoryError):
        list(ahead(work, range(8), threads=3, limit=6))


def test_work_that_fails_twice_is_an_error() -> None:
    def work(number: int) -> int:
        raise MemoryError(f"of {number}")

    with pytest.raises(MemoryError, match="of 0"):
        list(ahead(work, range(3), threads=2, limit=6, again=lambda error: True))


def test_what_has_begun_is_waited_for_and_the_rest_is_dropped() -> None:
    begun: list[int] = []
    ended: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        time.sleep(0.05)
        ended.append(number)
        return number

    before = threading.active_count()
    results = ahead(work, range(100), threads=2, limit=50)
    assert next(results) == 0
    results.close()
    assert sorted(begun) == sorted(ended)
    assert len(begun) <= 5
    assert threading.active_count() == before
    time.sleep(0.1)
    assert sorted(begun) == sorted(ended)


def test_without_threads_nothing_is_done_before_it_is_wanted() -> None:
    begun: list[int] = []
    results = ahead(begun.append, range(9), threads=0, limit=50)
    assert begun == []
    next(results)
    assert begun == [0]


def test_closing_reaches_the_source() -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    results = ahead(abs, ahead(abs, source(), threads=2, limit=3), threads=2, limit=3)
    assert next(results) == 0
    results.close()
    assert closed == [True]
