"""The wheel: what it contains, and that it works with no repository beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import u2pl

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return target


def run(installed: Path, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys, u2pl, u2pl.cli; sys.stderr.write(u2pl.__file__ + '\\n'); u2pl.cli.main()"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=where, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_the_wheel_has_every_module_and_data_file_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packaged = {name for name in names if not name.startswith(f"u2pl-{u2pl.__version__}.dist-info/")}
    source = ROOT / "src"
    kept = {
        path.relative_to(source).as_posix()
        for path in (source / "u2pl").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packaged == kept
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_it_works_away_from_the_repository(installed: Path, tmp_path: Path) -> None:
    version = run(installed, tmp_path, "--version")
    assert version.stdout == f"u2pl {u2pl.__version__}\n"
    assert version.stderr.startswith(str(installed))
    presets = run(installed, tmp_path, "presets")
    assert "folder" in presets.stdout
    assert run(installed, tmp_path, "check", "scenes", "data.train=10").stdout.endswith("ready to train\n")


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "demo", "--steps", "4")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "demo" / "pictures" / "comparison.png").exists()


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == u2pl.__version__
    assert citation["cff-version"] == "1.2.0"
    assert len(citation["preferred-citation"]["authors"]) == 9


def test_the_workflow_runs_what_ci_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["test"]
    assert set(job["strategy"]["matrix"]["python"]) == {"3.10", "3.11", "3.12", "3.13"}
    assert any(step.get("run") == ".ci/run" for step in job["steps"])
    makefile = (ROOT / "Makefile").read_text()
    by_hand = next(step["run"] for step in job["steps"] if "== 'Windows'" in step.get("if", ""))
    for tool in ("ruff check", "mypy", "lint-imports", 'pytest -q -m "not slow"'):
        assert tool in by_hand
        assert tool.replace("pytest -q", "pytest") in makefile
