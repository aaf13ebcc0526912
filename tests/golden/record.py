"""Record the golden runs anew: `make golden`. Do so only after a change that is meant to change training."""

from __future__ import annotations

import json
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from cases import CASES, begin, record

HERE = Path(__file__).parent
VALUES = HERE / "values.json"  #: what the runs came to
BEGUN = HERE / "begun"  #: runs that were stopped, with the checkpoint to go on from
STOPPED = ("u2pl_2_passes", "u2pl_every_option")  #: the cases in it
RESUMED = STOPPED[0]  #: the one whose checkpoint this version goes on from


def machine() -> dict[str, str]:
    """What rounding depends on: numbers agree to about seven digits where it is the same."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    kind = " ".join(model.get(key, "") for key in ("model name", "cpu family", "model", "stepping"))
    instructions = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "processor": f"{kind.strip() or platform.processor()} {instructions}"}


def record_all() -> dict[str, Any]:
    """Every case, by name."""
    values = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            values[name] = record(name, Path(folder) / "run")
    return values


def gone_on(name: str, folder: Path) -> dict[str, Any]:
    """What the stopped run of a case comes to, which an earlier version may have begun."""
    shutil.copytree(BEGUN / name, folder)
    return record(name, folder, resume=True)


def main() -> None:
    """Write the values, and with ``--begun`` the stopped runs, too."""
    if "--begun" in sys.argv[1:]:
        for name in STOPPED:
            shutil.rmtree(BEGUN / name, ignore_errors=True)
            begin(name, BEGUN / name)
    golden = {"machine": machine(), "runs": record_all()}
    with tempfile.TemporaryDirectory() as folder:
        golden["gone_on"] = {RESUMED: gone_on(RESUMED, Path(folder) / "run")}
    VALUES.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"{len(golden['runs'])} runs in {VALUES}")


if __name__ == "__main__":
    main()
