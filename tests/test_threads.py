"""Computing threads on cores of their own. Each case runs in a new process, whose threads have not started yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
pytestmark = pytest.mark.skipif(CORES < 2, reason="needs Linux and two cores")

PREAMBLE = """
import json, os, sys
import torch
from u2pl.engine.machine import computing_threads, make_fabric, threads_on_cores
from u2pl.threads import own_cores, own_threads

def cores(thread):
    return sorted(os.sched_getaffinity(thread))

fabric = make_fabric(accelerator="cpu", devices=1, nodes=1, precision="fp32")
"""


def output_of(code: str, **environment: str) -> Any:
    """The json that a script prints in its last line."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PREAMBLE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(CORES), **environment},
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_each_thread_has_a_core_of_its_own_and_all_cores_afterwards() -> None:
    inside, after, everything = output_of(
        """
        threads = [0, *computing_threads()]
        with threads_on_cores(fabric):
            inside = [cores(thread) for thread in threads]
        print(json.dumps([inside, [cores(thread) for thread in threads], sorted(own_cores())]))
        """
    )
    assert sorted(inside) == [[core] for core in everything]
    assert len(everything) == CORES
    assert after == [everything] * CORES


def test_the_threads_are_those_that_compute() -> None:
    """While torch computes, they are the ones whose time runs."""
    found, busy = output_of(
        """
        def ticks(thread):
            return sum(map(int, open(f"/proc/self/task/{thread}/stat").read().rsplit(")", 1)[1].split()[11:13]))

        found = list(computing_threads())
        others = own_threads() - {os.getpid()}
        before = {thread: ticks(thread) for thread in others}
        x = torch.rand(1200, 1200)
        for _ in range(60):
            x = (x @ x).softmax(dim=1)
        print(json.dumps([found, sorted(thread for thread in others if ticks(thread) - before[thread] > 3)]))
        """
    )
    assert found == busy
    assert len(found) == CORES - 1


def test_fewer_threads_than_cores_are_left_alone() -> None:
    inside, everything = output_of(
        """
        computing_threads()
        with threads_on_cores(fabric):
            inside = [cores(thread) for thread in own_threads()]
        print(json.dumps([inside, sorted(own_cores())]))
        """,
        OMP_NUM_THREADS="1",
    )
    assert all(one == everything for one in inside)


def test_threads_that_have_started_before_are_left_alone() -> None:
    found, inside, everything = output_of(
        """
        torch.rand(2000, 2000).softmax(dim=1)
        found = list(computing_threads())
        with threads_on_cores(fabric):
            inside = [cores(thread) for thread in own_threads()]
        print(json.dumps([found, inside, sorted(own_cores())]))
        """
    )
    assert found == []
    assert all(one == everything for one in inside)


@pytest.mark.slow
def test_loader_processes_use_all_cores() -> None:
    for method in ("fork", "spawn"):
        seen, everything = output_of(
            f"""
            import torch.multiprocessing
            from u2pl.data.loading import loader
            torch.multiprocessing.set_start_method({method!r})
            sys.path.insert(0, {os.path.dirname(__file__)!r})
            from test_threads import Cores
            everything = sorted(own_cores())
            computing_threads()
            with threads_on_cores(fabric):
                seen = list(loader(Cores(), workers=2))
            print(json.dumps([seen, everything]))
            """
        )
        assert seen == [everything] * 4


def test_threads_that_work_ahead_use_all_cores() -> None:
    seen, everything = output_of(
        """
        from u2pl.engine.ahead import ahead
        everything = sorted(own_cores())
        computing_threads()
        with threads_on_cores(fabric):
            seen = list(ahead(lambda number: cores(0), range(4), threads=2, limit=4))
        print(json.dumps([seen, everything]))
        """
    )
    assert seen == [everything] * 4


class Cores:
    """The cores of the process that reads an item."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> list[int]:
        return sorted(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_waiting_threads_give_their_cores_away_unless_the_user_has_a_rule(
    given: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from u2pl.threads import spin_shortly

    monkeypatch.setattr(os, "environ", dict(given))
    spin_shortly()
    assert os.environ.get("GOMP_SPINCOUNT") == expected
