"""Which file of weights a run folder has."""

from __future__ import annotations

from pathlib import Path

import pytest

from u2pl.build.trained import weights_file
from u2pl.errors import InputError


def test_a_run_with_both_files(tmp_path: Path) -> None:
    for name in ("last", "best"):
        (tmp_path / f"{name}.safetensors").touch()
        assert weights_file(tmp_path, name) == tmp_path / f"{name}.safetensors"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"last\.safetensors is missing; give a run folder"):
        weights_file(tmp_path)
    (tmp_path / "last.safetensors").touch()
    with pytest.raises(InputError, match=r"^--weights best: .* has only its last weights"):
        weights_file(tmp_path, "best")
    with pytest.raises(InputError, match="--weights newest: should be last or best"):
        weights_file(tmp_path, "newest")
