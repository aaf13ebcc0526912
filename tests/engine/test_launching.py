"""How the processes of a run begin and end: torchrun, ports in use, processes that are killed. None is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
SHORT = ("train.steps=3", "train.log_every=1", "train.save_every=0", "data.val=1")
ENDLESS = ("train.steps=100000", "train.log_every=1", "train.save_every=0", "data.val=1")
LIMIT = 240  # seconds for a whole run, on a machine that is busy


class Runs:
    """Starts commands, and finds every process that comes from them by a variable of its environment."""

    def __init__(self) -> None:
        self.mark = f"U2PL_TEST_RUN={uuid.uuid4().hex}"
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *command: Any, **environment: str) -> subprocess.Popen[str]:
        name, _, value = self.mark.partition("=")
        inherited = {key: text for key, text in os.environ.items() if key not in ("MASTER_ADDR", "MASTER_PORT")}
        process = subprocess.Popen(
            [str(each) for each in command],
            env={**inherited, "OMP_NUM_THREADS": "1", name: value, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def alive(self) -> dict[int, list[str]]:
        """Command lines of the processes that still run, by id."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_text().split("\0")
            except OSError:  # it has ended, or is of another user
                continue
        return {number: command for number, command in found.items() if command != [""]}

    def none_is_left(self, within: float = 60) -> bool:
        until = time.monotonic() + within
        while self.alive() and time.monotonic() < until:
            time.sleep(0.2)
        return not self.alive()


@pytest.fixture
def runs() -> Iterator[Runs]:
    if not Path("/proc/self/environ").exists():
        pytest.skip("needs /proc to find the processes of a run")
    those = Runs()
    yield those
    for number in those.alive():
        os.kill(number, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def steps(out: Path) -> int:
    """Lines in the journal of a run."""
    file = out / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_two_machines_started_by_torchrun(tmp_path: Path, tiny_overrides: tuple[str, ...], runs: Runs) -> None:
    out = tmp_path / "run"
    command = ("train", "scenes", *tiny_overrides, *SHORT, "train.nodes=2", "train.devices=1", "--out", out)
    place = ("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--local-addr=127.0.0.1")
    torchrun = (BIN / "torchrun", "--nnodes=2", "--nproc-per-node=1", *place, "--no-python", BIN / "u2pl")
    machines = [runs.start(*torchrun, *command) for _ in range(2)]
    told = [machine.communicate(timeout=LIMIT) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], told
    assert sorted(text.count("weights, metrics and curves in") for text, _ in told) == [0, 1]
    assert sorted(text.count("mIoU") > 0 for text, _ in told) == [False, True]
    assert steps(out) >= 3
    assert runs.none_is_left()


def test_two_processes_started_by_torchrun(tmp_path: Path, tiny_overrides: tuple[str, ...], runs: Runs) -> None:
    out = tmp_path / "run"
    torchrun = (BIN / "torchrun", "--nproc-per-node=2", f"--master-port={free_port()}", "--no-python", BIN / "u2pl")
    done = runs.start(*torchrun, "train", "scenes", *tiny_overrides, *SHORT, "train.devices=2", "--out", out)
    text, errors = done.communicate(timeout=LIMIT)
    assert done.returncode == 0, errors
    assert text.count("weights, metrics and curves in") == 1
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines() if '"lr"' in line]
    assert steps == [1, 2, 3]
    assert runs.none_is_left()


def test_torchrun_and_the_configuration_have_to_agree(
    tmp_path: Path, tiny_overrides: tuple[str, ...], runs: Runs
) -> None:
    torchrun = (BIN / "torchrun", "--nproc-per-node=2", f"--master-port={free_port()}", "--no-python", BIN / "u2pl")
    done = runs.start(*torchrun, "train", "scenes", *tiny_overrides, *SHORT, "--out", tmp_path / "run")
    errors = done.communicate(timeout=LIMIT)[1]
    assert done.returncode != 0
    assert errors.count("u2pl: train.devices: torchrun has started 2 processes, but train.devices=1") == 1
    assert not (tmp_path / "run").exists()
    assert runs.none_is_left()


def test_a_port_in_use_is_told_in_one_line(tmp_path: Path, tiny_overrides: tuple[str, ...], runs: Runs) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = (BIN / "u2pl", "train", "scenes", *tiny_overrides, *SHORT, "train.devices=2")
        done = runs.start(*command, "--out", tmp_path / "run", MASTER_PORT=port)
        errors = done.communicate(timeout=LIMIT)[1]
    assert done.returncode == 2
    assert errors.count("\n") == 1
    assert errors.startswith(f"u2pl: MASTER_PORT: {port} cannot be used (Address already in use); set a free one")
    assert runs.none_is_left(within=5)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("lost", [0, 1])
def test_when_a_process_is_killed_the_others_end(
    tmp_path: Path, tiny_overrides: tuple[str, ...], runs: Runs, lost: int
) -> None:
    out = tmp_path / "run"
    first = runs.start(BIN / "u2pl", "train", "scenes", *tiny_overrides, *ENDLESS, "train.devices=2", "--out", out)
    until(lambda: steps(out) >= 2 or first.poll() is not None, "training does not begin")
    (second,) = set(runs.alive()) - {first.pid}
    os.kill((first.pid, second)[lost], signal.SIGKILL)
    _, errors = first.communicate(timeout=60)  # the pipes close when all processes have ended
    assert runs.none_is_left(within=60)
    assert errors.count("\n") == 1, errors
    who = "the first process of this run has ended" if lost == 0 else "process 1 of this run was killed (signal 9)"
    assert errors.startswith(f"u2pl: {who}, so the others end; `train --resume` goes on from the last save")
    assert first.returncode == (-signal.SIGKILL if lost == 0 else 2)


def test_a_stop_from_the_keyboard_is_told_once(tmp_path: Path, tiny_overrides: tuple[str, ...], runs: Runs) -> None:
    """A terminal sends its signal to all processes."""
    out = tmp_path / "run"
    first = runs.start(BIN / "u2pl", "train", "scenes", *tiny_overrides, *ENDLESS, "train.devices=2", "--out", out)
    until(lambda: steps(out) >= 2 or first.poll() is not None, "training does not begin")
    for number in runs.alive():
        os.kill(number, signal.SIGINT)
    errors = first.communicate(timeout=60)[1]
    assert first.returncode == 128 + signal.SIGINT
    assert errors.count("\n") == 1, errors
    assert "--resume" in errors
    assert runs.none_is_left(within=5)


def test_training_that_diverges_is_told_once(tmp_path: Path, tiny_overrides: tuple[str, ...], runs: Runs) -> None:
    command = (BIN / "u2pl", "train", "scenes", *tiny_overrides, *SHORT, "train.devices=2", "train.lr=100")
    more = ("train.head_lr_factor=1000000", "train.steps=6", "train.lr_warmup=0", "train.momentum=0")
    done = runs.start(*command, *more, "--out", tmp_path / "run")
    errors = done.communicate(timeout=LIMIT)[1]
    assert done.returncode == 2, errors
    assert errors.count("\n") == 1, errors
    assert "training diverged" in errors
    assert runs.none_is_left(within=5)


def test_a_run_resumes_with_the_number_of_processes_that_it_began_with(
    tmp_path: Path, tiny_overrides: tuple[str, ...], runs: Runs
) -> None:
    """Each process draws its own share of a batch, so another number would draw other batches."""
    out = tmp_path / "run"
    command = (BIN / "u2pl", "train", "scenes", *tiny_overrides, *SHORT, "--out", out)
    begun = runs.start(*command)
    assert begun.communicate(timeout=LIMIT) is not None
    assert begun.returncode == 0
    resumed = runs.start(*command, "train.devices=2", "--resume")
    errors = resumed.communicate(timeout=LIMIT)[1]
    assert resumed.returncode == 2
    assert errors.count("\n") == 1
    assert "train.devices: is 2 now but 1 in" in errors
    assert runs.none_is_left(within=5)
