"""The benchmark of exported files prints a row for each of them."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from u2pl.commands.train import train
from u2pl.config.overrides import load_config

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "export.py"
KEYS = (
    *("data.train=8", "data.val=3", "data.labeled=4", "data.height=64", "data.width=96", "data.workers=0"),
    *("network.channels=16", "network.low_level_channels=8", "method.name=supervised", "train.steps=2"),
    *("train.batch_size=2", "train.crop_size=48", "train.accelerator=cpu", "train.precision=fp32"),
)


@pytest.fixture(scope="module")
def benchmark() -> Any:
    torch.set_num_threads(1)
    return runpy.run_path(str(SCRIPT))


def test_what_cannot_be_measured_is_one_line(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([str(tmp_path)], [str(tmp_path), "--formats", "onnx,tflite"]):
        with pytest.raises(SystemExit):
            benchmark["main"](arguments)
    told = capsys.readouterr().err
    assert "has no last.safetensors" in told
    assert "--formats: tflite is none of onnx, pt2, int8" in told


@pytest.mark.slow
def test_each_format_has_a_row(benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    run = tmp_path / "run"
    train(load_config("scenes", list(KEYS)), run, say=lambda line: None, reports=False)
    benchmark["main"]([str(run), "--out", str(tmp_path / "files")])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert list(cells) == ["format", "---", "PyTorch", "onnx", "int8", "pt2"]
    for name in ("onnx", "pt2"):
        size, took, difference, equal, _, speed = cells[name]
        assert float(size) == pytest.approx((tmp_path / "files" / f"network.{name}").stat().st_size / 1e6, abs=0.051)
        assert float(difference) < 0.01
        assert float(equal.removesuffix(" %")) >= 99.9
        assert min(float(took), 0) == 0 < float(speed)
    assert float(cells["int8"][0]) < float(cells["onnx"][0])
    assert all(0 <= float(cells[name][4]) <= 100 for name in ("onnx", "int8"))
