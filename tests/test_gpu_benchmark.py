"""The benchmark of a GPU, on a CPU: every case runs, and none keeps the others from running."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu", module)
    spec.loader.exec_module(module)
    return module


def cases_of(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["cases"]  # type: ignore[no-any-return]


def test_a_failure_is_one_line_and_the_rest_goes_on(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.json"

    class Failing(gpu.Bench):  # type: ignore[misc]
        def measure(self, case: Any, left: float) -> Iterator[dict[str, Any]]:
            if case.name == "bf16":
                yield {"teacher_passes": 2, "step_ms": 7.0, "passes_ms": 5.0, "ratio": 1.4, "first_seconds": 3.0}
                raise ValueError("broken\nin several lines")
            if case.name == "bf16, compiled":
                assert cases_of(out)[0]["step_ms"] == 7.0  # a kill loses nothing
                raise gpu.torch.OutOfMemoryError("out of memory")
            time.sleep(60)

    def measure(seconds: float, *, small: bool) -> list[str | None]:
        end = time.perf_counter() + seconds
        gpu.measure_all(Failing("cpu", small=small, repeats=1), gpu.CASES[:4], out=out, end=end)
        return [case.get("problem") for case in cases_of(out)]

    problems = measure(3, small=True)
    assert problems[:3] == [None, "failed: ValueError: broken", "failed: OutOfMemoryError: out of memory"]
    assert str(problems[3]).startswith("failed: TimeoutError: stopped after ")
    assert str(problems[4]).startswith("skipped: it may take 60 s, 0 s are left")
    assert "7.0        5.0      1.400" in capsys.readouterr().out
    gpu.CASES = gpu.CASES[:2]
    problems = measure(140, small=False)  # the second may take longer
    assert problems[:2] == [None, "failed: ValueError: broken"]
    assert str(problems[2]).startswith("skipped: it may take 150 s")


@pytest.mark.slow
def test_cases_have_their_numbers(gpu: Any, tmp_path: Path) -> None:
    """One of each kind."""
    out, names = tmp_path / "gpu.json", ("bf16", "bf16, compiled", "train, compiled", "bf16, CUDA graphs")
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--small", "--repeats", "1", "--minutes", "20"]
    command += ["--only", ";".join(names), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    found = {(case["case"], case.get("teacher_passes")): case for case in cases_of(out)}
    assert not [case for case in found.values() if "problem" in case]
    for case in [case for case in gpu.CASES if case.name in names]:
        for passes in (None,) if case.trains else case.passes:
            numbers = found.pop((case.name, passes))
            assert numbers["step_ms" if case.trains else "passes_ms"] > 0
            assert ("ratio" in numbers) == (case.whole and not case.trains)
    assert not found
