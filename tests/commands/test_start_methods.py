"""Python scripts where loader processes are not forked, as on Windows and macOS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import multiprocessing
from pathlib import Path

import u2pl

KEYS = ["data.train=8", "data.labeled=4", "data.val=2", "data.height=32", "data.width=48", "data.workers=2"]
KEYS += ["train.steps=3", "train.batch_size=2", "train.crop_size=32", "network.encoder=resnet18", "network.channels=16"]
KEYS += ["method.contrast.bank_size=64", "method.contrast.keys_per_step=8"]


def main():
    multiprocessing.set_start_method("{method}", force=True)
    trained = u2pl.train(u2pl.load_config("scenes", KEYS), Path("{out}"))
    print("done", list(trained.scores))


{guard}main()
"""


def run(tmp_path: Path, method: str, guard: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(method=method, out=tmp_path / "run", guard=guard))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, path], env=environment, capture_output=True, text=True, timeout=400, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_with_a_guard_trains(tmp_path: Path, method: str) -> None:
    done = run(tmp_path, method, 'if __name__ == "__main__":\n    ')
    assert (done.returncode, done.stderr) == (0, "")
    assert "done ['student', 'teacher']" in done.stdout


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_what_it_lacks(tmp_path: Path) -> None:
    done = run(tmp_path, "spawn", "")
    assert done.returncode != 0
    assert 'put what it does below `if __name__ == "__main__":`' in done.stderr
