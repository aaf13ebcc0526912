"""The example without a framework does what it says."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[1] / "examples" / "plain_pytorch.py"


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], float]:
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("plain_pytorch", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_losses_fall_and_a_score_is_printed(
    main: Callable[[list[str]], float], capsys: pytest.CaptureFixture[str]
) -> None:
    miou = main(["--steps", "20", "--crop", "48"])
    lines = capsys.readouterr().out.splitlines()
    supervised = [float(match[1]) for line in lines if (match := re.search(r" supervised (\d+\.\d+)", line))]
    assert len(supervised) == 10
    assert sum(supervised[-3:]) < 0.93 * sum(supervised[:3])  # 0.79 to 0.88, by seed
    assert "unsupervised" not in lines[0]  # the warm-up
    assert "unsupervised" in lines[-2]
    assert "contrastive" in lines[-2]
    assert lines[-1] == f"teacher: {miou:.2f} mIoU on 20 validation images"
    assert 0 < miou < 100


def test_it_is_deterministic(main: Callable[[list[str]], float], capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for _ in range(2):
        main(["--steps", "3", "--crop", "32"])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
