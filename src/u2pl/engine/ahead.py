"""Work that is done ahead in threads: in order, and within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from u2pl.threads import bound_cores, unbind

Item = TypeVar("Item")
Result = TypeVar("Result")

_PER_THREAD = 4  # items at a time: one in work, others that wait for it or for their turn


def ahead(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    limit: int,
    cost: Callable[[Item], int] = lambda item: 1,
    again: Callable[[BaseException], bool] = lambda error: False,
) -> Generator[Result, None, None]:
    """Yield ``work(item)`` for each item, in their order, and do the work ahead in ``threads``.

    Results that are not taken yet, and the work on others, cost at most ``limit`` together, and are few. An item that
    costs more waits until all others are taken, and is worked on in the calling thread. So is an item whose work raised
    an error that may not occur ``again``, as soon as no other work goes on.

    An error of ``work`` is raised where its result would come, and one of ``items`` after the results before it. When
    the generator ends or is closed, work that has not begun is dropped, work that has begun is waited for, and
    ``items`` are closed if they come from a generator.

    Args:
        threads: 0: all work is done in the calling thread, when its result is asked for.
        cost: of an item, such as its pixels.
        again: whether to repeat the work that raised an error, alone.
    """
    pending: deque[tuple[Item, Future[Result], int]] = deque()

    def taken() -> Result:
        item, future, _ = pending.popleft()
        error = future.exception()
        if error is None or not again(error):
            return future.result()
        del error, future  # their frames hold the tensors of the work that failed
        wait([other for _, other, _ in pending])
        return work(item)

    most = _PER_THREAD * threads
    pool = ThreadPoolExecutor(max(1, threads), initializer=unbind, initargs=(bound_cores(),))
    try:
        iterator = iter(items)
        while True:
            try:
                item = next(iterator)
            except StopIteration:
                break
            except Exception:
                while pending:
                    yield taken()
                raise
            price = cost(item)
            while pending and (_held(pending) + price > limit or len(pending) >= most or pending[0][1].done()):
                yield taken()
            if not threads or price > limit:
                yield work(item)
            else:
                pending.append((item, pool.submit(work, item), price))
        while pending:
            yield taken()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if isinstance(items, Generator):
            items.close()  # now, not when the last error that refers to it is gone


def _held(pending: Iterable[tuple[object, object, int]]) -> int:
    return sum(price for *_, price in pending)
