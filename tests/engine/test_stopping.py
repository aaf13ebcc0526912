"""Signals to a real training: the step is finished and saved, the line says how to go on, nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from u2pl.engine.stopping import Deferred, Stopped, stop_on_signals

COMMAND = Path(sys.executable).with_name("u2pl")
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


def start(out: Path, overrides: tuple[str, ...], *more: str) -> subprocess.Popen[str]:
    """A training in a session of its own, as a scheduler starts it."""
    command = [COMMAND, "train", "scenes", *overrides, *more, "--out", out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_step(process: subprocess.Popen[str], out: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        path = out / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        if any(json.loads(line)["step"] >= step for line in lines if line.endswith("}")):
            return
        time.sleep(0.05)
    pytest.fail(f"no step {step}: {process.communicate()}")


def processes_of(session: int) -> list[int]:
    """Processes of a session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def handles(process: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{process}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda each: each.name)
@pytest.mark.parametrize("devices", [1, 2])
def test_a_signal_stops_a_training_that_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_overrides: tuple[str, ...], number: signal.Signals, devices: int
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    steps = 40 if devices == 1 else 30
    more = (
        f"train.steps={steps}",
        "train.save_every=0",
        "train.log_every=1",
        f"train.devices={devices}",
        "data.workers=1",
    )
    process = start(out, tiny_overrides, *more)
    wait_for_step(process, out, 3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    (line,) = errors.splitlines()
    saved = torch.load(out / "last.ckpt", weights_only=True)["step"]
    assert 3 <= saved < steps
    assert line.startswith(f"u2pl: stopped by {number.name} after step {saved}, which is saved; to go on: u2pl train")
    assert line.endswith("--resume")
    assert processes_of(process.pid) == []
    if devices == 1 and number in (signal.SIGTERM, signal.SIGUSR1):
        for folder, resume in ((out, ("--resume",)), (whole, ())):
            done = start(folder, tiny_overrides, *more, *resume)
            assert done.communicate(timeout=200)[1] == ""
        for name in ("last.safetensors", "best.safetensors"):
            assert (whole / name).read_bytes() == (out / name).read_bytes()
        read = [[json.loads(line)["step"] for line in (each / "metrics.jsonl").open()] for each in (whole, out)]
        assert read[0] == read[1]


@pytest.mark.slow
def test_a_signal_before_the_first_step_is_told_too(tmp_path: Path, tiny_overrides: tuple[str, ...]) -> None:
    process = start(tmp_path / "run", tiny_overrides, "data.train=4000", "data.labeled=4000")
    deadline = time.monotonic() + 120
    while not handles(process.pid, signal.SIGTERM) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, len(errors.splitlines())) == (143, 1)
    assert errors.startswith("u2pl: stopped by SIGTERM; to go on: u2pl train")


@pytest.fixture
def handlers():
    """Keep the handlers of the test runner."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda each: each.name)
def test_the_first_signal_waits_and_the_second_does_not(handlers: None, number: signal.Signals) -> None:
    stop_on_signals()
    with Deferred() as signals:
        os.kill(os.getpid(), number)
        assert signals.number == number
        with pytest.raises(Stopped) as caught:
            os.kill(os.getpid(), number)
    assert (caught.value.number, caught.value.step) == (number, None)
    with pytest.raises(Stopped):  # the handlers from before are back
        os.kill(os.getpid(), number)


class SignalAt:
    """A watcher that sends this process a signal at a report."""

    def __init__(self, step: int) -> None:
        self.at = step

    def begin(self, steps: int) -> None: ...

    def step(self, done: int, losses: Mapping[str, float]) -> None:
        if done == self.at:
            os.kill(os.getpid(), signal.SIGTERM)

    def evaluated(self, done: int, scores: Mapping[str, Any]) -> None: ...


@pytest.mark.parametrize("at", [3, 5, 6])
def test_a_stop_leaves_out_nothing_not_even_a_validation(
    handlers: None, tmp_path: Path, tiny_train: Callable[..., Any], at: int
) -> None:
    """A signal at a report is seen after the next step: then a validation is due, a save, or neither."""
    every = ("train.steps=12", "train.log_every=1", "train.eval_every=4", "train.save_every=6")
    tiny_train(tmp_path / "whole", *every)
    with pytest.raises(Stopped) as caught:
        tiny_train(tmp_path / "parts", *every, watchers=(SignalAt(at),))
    assert caught.value.step == at + 1
    last = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").open()][-1]
    assert (last["step"], "student/miou" in last) == (at + 1, False)  # a stop does not wait for a validation
    tiny_train(tmp_path / "parts", *every, resume=True)
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    steps = [
        [(line["step"], "student/miou" in line) for line in map(json.loads, (tmp_path / run / "metrics.jsonl").open())]
        for run in ("whole", "parts")
    ]
    assert steps[0] == steps[1]
