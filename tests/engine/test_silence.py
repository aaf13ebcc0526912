"""A threshold that no pseudo-label passes is said once, in a run and by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from u2pl.engine import silence
from u2pl.engine.silence import Silence


def lines(readings: list[tuple[int, float | None]]) -> list[str]:
    said: list[str] = []
    listener = Silence(said.append, "method.threshold")
    for done, loss in readings:
        listener.read(done, {"loss/supervised": 1.0} if loss is None else {"loss/unsupervised": loss})
    return said


def test_it_is_said_once_after_500_steps() -> None:
    begin: list[tuple[int, float | None]] = [(done, None) for done in range(10, 310, 10)]  # the warm-up
    quiet: list[tuple[int, float | None]] = [(done, 0.0) for done in range(310, 2000, 10)]
    assert lines([*begin, *quiet]) == [
        "no pseudo-label has trained for 500 steps: none is confident enough; lower method.threshold"
    ]
    assert lines([*begin, *quiet[:49]]) == []
    assert lines([(10, 0.0), (509, 0.0)]) == []  # from the first reading on
    assert len(lines([(10, 0.0), (510, 0.0)])) == 1


def test_one_pseudo_label_breaks_it() -> None:
    assert lines([(10, 0.0), (400, 1e-9), (899, 0.0)]) == []
    assert len(lines([(10, 0.0), (400, 1e-9), (900, 0.0)])) == 1


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("method.name=fixmatch", "method.threshold=1"), "method.threshold"),
        (("method.reliability.min_confidence=1",), "method.reliability.min_confidence"),
        (("method.name=fixmatch", "method.threshold=0"), None),
        (("method.name=supervised",), None),
    ],
)
def test_a_run_says_which_key_to_lower(
    tmp_path: Path,
    tiny_train: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    overrides: tuple[str, ...],
    key: str,
) -> None:
    monkeypatch.setattr(silence, "STEPS", 6)
    said: list[str] = []
    tiny_train(tmp_path, "train.log_every=2", *overrides, say=said.append)
    found = [line for line in said if line.startswith("no pseudo-label")]
    assert len(found) == (key is not None)
    assert all(line.endswith(f"lower {key}") for line in found)
