"""Keys of every process reach every bank."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

#: Each process has keys of its own, and flags of its own.
SCRIPT = """
import sys

import torch

from u2pl.engine.machine import make_fabric, share_keys

fabric = make_fabric(accelerator="cpu", devices=2, nodes=1, precision="fp32")
fabric.launch()
torch.manual_seed(fabric.global_rank)
keys, keep = torch.rand(3, 4, 2), torch.rand(3, 4) < 0.5
torch.save({"own": (keys, keep), "all": share_keys(fabric)(keys, keep)}, f"{sys.argv[1]}/{fabric.global_rank}.pt")
"""


def test_keys_of_all_processes_arrive_in_the_order_of_their_ranks(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command, environment = [sys.executable, str(script), str(tmp_path)], {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    kept = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert not torch.equal(kept[0]["own"][0], kept[1]["own"][0])
    for process in kept:
        for part, together in enumerate(process["all"]):
            assert torch.equal(together, torch.cat([each["own"][part] for each in kept], dim=1))
