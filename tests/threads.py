"""Threads that play processes: they wait for each other wherever they exchange a sum."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Exchange:
    """Sums the tensors of all threads. Each of them has to call it equally often."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.barrier = threading.Barrier(threads, timeout=20)
        self.given: dict[int, Tensor] = {}

    def total(self, tensor: Tensor) -> Tensor:
        self.given[threading.get_ident()] = tensor.detach().clone()
        self.barrier.wait()
        total = torch.stack([self.given[name] for name in sorted(self.given)]).sum(dim=0)
        self.barrier.wait()
        return total

    def average(self, tensor: Tensor) -> Tensor:
        return self.total(tensor) / self.threads


def in_threads(work: Callable[[int], T], number: int) -> list[T]:
    """What ``work(rank)`` returns for each rank."""
    results: dict[int, T] = {}

    def run(rank: int) -> None:
        results[rank] = work(rank)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == number, "a thread has failed"
    return [results[rank] for rank in range(number)]
