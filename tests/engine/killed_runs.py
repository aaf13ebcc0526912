"""Trainings that are killed again and again. Started by test_kills.py as a process of its own.

It loads torch once and forks a process for each training, so that hundreds of them take minutes.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from tiny_run import build_tiny
from u2pl.commands import checks, train
from u2pl.config.overrides import load_config


def training(out: Path, overrides: list[str]) -> int:
    """A process that trains, or goes on. Returns its id."""
    process = os.fork()
    if process:
        return process
    try:
        torch.set_num_threads(1)
        train.train(load_config("scenes", overrides), out, resume=True, say=lambda line: None)
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def finish(process: int) -> float:
    """Wait for a training that has to end well. Returns its seconds."""
    began = time.monotonic()
    if os.waitpid(process, 0)[1] != 0:
        sys.exit("a training failed")
    return time.monotonic() - began


def main(folder: Path, kills: int, seed: int, overrides: list[str]) -> None:
    """Train ``folder/whole`` without a stop and ``folder/parts`` with so many kills. Prints when they came."""
    checks.build_network = build_tiny
    train.save_pictures = lambda *_: None
    seconds = finish(training(folder / "whole", overrides))
    draw, steps = random.Random(seed), []
    while len(steps) < kills:
        process = training(folder / "parts", overrides)
        time.sleep(draw.uniform(0, 0.6 * seconds))
        os.kill(process, signal.SIGKILL)
        if os.waitpid(process, 0)[1] == signal.SIGKILL:
            metrics = folder / "parts" / "metrics.jsonl"
            steps.append(len(metrics.read_text().splitlines()) if metrics.exists() else 0)
        elif not (folder / "parts" / "last.ckpt").exists():
            sys.exit("a training failed")
        else:  # it was faster: begin anew
            for path in (folder / "parts").iterdir():
                path.unlink()
    finish(training(folder / "parts", overrides))
    print(len(steps), steps)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
