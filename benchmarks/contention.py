"""Two trainings on the cores of one: how much slower is each?

With threads as they are by default in u2pl (bound to cores, and waiting shortly), as they are in torch, and asleep.

    python benchmarks/contention.py [--steps 40]

Prints steps per second, the median over the lines of metrics.jsonl, of a training of drawn scenes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

KEYS = ("data.train=60", "data.labeled=6", "data.val=2", "train.log_every=5", "train.save_every=0")


UNBOUND = "import u2pl.threads as t; t._use = lambda *_: None; "
#: By name: what precedes the command, and the environment.
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "u2pl": ("", {}),
    "torch": (UNBOUND, {"GOMP_SPINCOUNT": "300000"}),
    "asleep": (UNBOUND, {"OMP_WAIT_POLICY": "PASSIVE"}),
}


def start(out: Path, steps: int, way: str) -> subprocess.Popen[bytes]:
    before, environment = WAYS[way]
    command = [sys.executable, "-c", f"{before}from u2pl.cli import main; main()", "train", "scenes", *KEYS]
    return subprocess.Popen(
        [*command, f"train.steps={steps}", "--out", str(out)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )


def speed(out: Path) -> float:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return statistics.median([line["steps_per_second"] for line in lines if "steps_per_second" in line][1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    steps = parser.parse_args().steps
    print(f"{'threads':<10}{'alone':>10}{'one of two':>12}{'share':>8}")
    with TemporaryDirectory() as folder:
        for way in WAYS:
            outs = [Path(folder) / f"{way}-{number}" for number in range(3)]
            start(outs[0], steps, way).wait()
            pair = [start(out, steps, way) for out in outs[1:]]
            for process in pair:
                process.wait()
            alone, shared = speed(outs[0]), statistics.mean(map(speed, outs[1:]))
            print(f"{way:<10}{alone:>10.2f}{shared:>12.2f}{100 * shared / alone:>7.0f}%", flush=True)


if __name__ == "__main__":
    main()
