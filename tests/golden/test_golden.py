"""Training comes to the numbers it came to before: a net under changes that should change nothing.

`make golden` records them anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cases import CASES, SAVED, record
from record import BEGUN, RESUMED, VALUES, gone_on, machine

from u2pl.errors import InputError

GOLDEN: dict[str, Any] = json.loads(VALUES.read_text())

#: Relative. The machine that recorded comes to the same numbers. Others round otherwise from the first step on, and a
#: pixel beside a threshold falls on the other side of it: AVX-512 and AVX2 differ by 4e-4. Without either, dropout also
#: draws other numbers: the difference is 6e-2.
SAME, VECTOR, OTHER = 1e-5, 2e-2, 0.15


def tolerance() -> float:
    """How far this machine may be from what is recorded."""
    if GOLDEN["machine"] == machine():
        return SAME
    kinds = {one["processor"].rpartition(" ")[2] for one in (GOLDEN["machine"], machine())}
    return VECTOR if kinds <= {"AVX2", "AVX512"} else OTHER


TOLERANCE = tolerance()


def close(values: list[float]) -> Any:
    return pytest.approx(values, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_as_it_was(name: str, tmp_path: Path) -> None:
    now, golden = record(name, tmp_path / "run"), GOLDEN["runs"][name]
    assert now["losses"].keys() == golden["losses"].keys()
    for loss, values in golden["losses"].items():
        assert now["losses"][loss] == close(values), loss
    assert now["gradient_norm"] == close(golden["gradient_norm"])
    assert now["checksums"] == {part: close(value) for part, value in golden["checksums"].items()}


def test_no_run_is_recorded_that_is_not_made() -> None:
    assert GOLDEN["runs"].keys() == CASES.keys()


def test_a_run_that_an_earlier_version_began_goes_on(tmp_path: Path) -> None:
    """Its configuration has the keys of that version, and its first steps had the views of that version."""
    golden = GOLDEN["gone_on"][RESUMED]
    now = gone_on(RESUMED, tmp_path / "run")
    assert now["losses"].keys() == golden["losses"].keys()
    for loss, values in golden["losses"].items():
        assert now["losses"][loss] == close(values), loss
    assert len(now["losses"]["supervised"]) == len(GOLDEN["runs"][RESUMED]["losses"]["supervised"]) - SAVED
    assert now["checksums"] == {part: close(value) for part, value in golden["checksums"].items()}


def test_a_run_whose_parts_are_kept_elsewhere_now_is_refused_in_one_line(tmp_path: Path) -> None:
    name, folder = "u2pl_every_option", tmp_path / "run"
    shutil.copytree(BEGUN / name, folder)
    with pytest.raises(InputError, match=r"last\.ckpt cannot be resumed from") as caught:
        record(name, folder, resume=True)
    assert "\n" not in str(caught.value)
