"""The command `u2pl report`: what it writes, and that bad input is one line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


def test_a_run_gets_a_report(u2pl: Command, run_folder: Path, tmp_path: Path) -> None:
    assert f"report in {run_folder / 'report.html'}" in (run_folder / "stdout.txt").read_text()
    path = tmp_path / "mine.html"
    done = u2pl("report", run_folder, "--out", path, "--images", 1)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"report in {path}\n"
    text = path.read_text()
    assert "1 of 2 validation images" in text
    assert "2 validation images" in text
    assert "What auto chose" not in text or "auto: " in text
    assert u2pl("report", run_folder, "--out", path).code == 0  # its own file may be replaced


@pytest.mark.parametrize("broken", ["nothing", "config.yaml", "metrics.jsonl", "last.safetensors"])
def test_what_is_no_finished_run_is_one_line(u2pl: Command, run_folder: Path, tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "run"
    if broken != "nothing":
        shutil.copytree(run_folder, folder)
        (folder / "report.html").unlink()
        (folder / broken).write_text("{")
    done = u2pl("report", folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert str(folder) in done.err
    assert "--out" not in done.err  # which nobody gave
    assert not (folder / "report.html").exists()


def test_a_missing_extra_is_one_line(u2pl: Command, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    done = u2pl("report", run_folder)
    assert (done.code, done.out) == (2, "")
    assert done.err == "u2pl: a report needs Jinja2, which is not installed; pip install 'u2pl[report]'\n"


def test_without_a_run_there_is_nothing_to_report(u2pl: Command) -> None:
    done = u2pl("report")
    assert done.code == 2
