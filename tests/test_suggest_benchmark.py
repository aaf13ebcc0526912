"""The benchmark of suggested labels: it trains on the labels that strategies pick, once."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from u2pl.data.scenes.reader import scenes

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "suggest.py"
KEYS = (
    *("train.steps=2", "train.batch_size=2", "train.crop_size=48", "train.accelerator=cpu", "train.eval_every=0"),
    *("network.name=deeplabv3plus", "network.encoder=resnet18", "network.channels=8", "network.low_level_channels=8"),
    *("network.pretrained=false", "method.name=supervised", "data.val=val", "data.workers=0", "train.precision=fp32"),
)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    torch.set_num_threads(1)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = util.spec_from_file_location("suggest_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "suggest_benchmark", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_strategies_add_to_the_same_start(benchmark: Any, tmp_path: Path) -> None:
    source = scenes(train=9, val=2, height=48, width=64)
    for part, samples in (("train", source.labeled), ("val", source.val)):
        for number, sample in enumerate(samples):
            for kind, pixels in (("images", sample.image().permute(1, 2, 0)), ("masks", sample.mask())):
                (tmp_path / "set" / kind / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.numpy()).save(tmp_path / "set" / kind / part / f"{number}.png")
    (tmp_path / "set" / "classes.txt").write_text("\n".join(source.classes))
    out = tmp_path / "out"
    options = ("--start", "2", "--add", "3", "--seeds", "0", "--strategies", "random,expected", "--out", str(out))
    arguments = ["folder", f"data.root={tmp_path / 'set'}", *KEYS, *options]
    benchmark.main(arguments)
    table = (out / "table.md").read_text()
    assert [line.split("|")[2].strip() for line in table.splitlines() if line.startswith("| ")][2:] == ["2", "5", "5"]
    lists = {path.stem: path.read_text().split() for path in (out / "seed-0").glob("*.txt")}
    assert set(lists) == {"start", "random", "expected"}
    for names in lists.values():
        assert names[:2] == lists["start"]
        assert len(set(names)) == len(names)
        assert all(name.startswith("train/") for name in names)
    assert lists["random"] != lists["expected"]
    weights = {path: path.stat().st_mtime_ns for path in out.rglob("last.safetensors")}
    assert len(weights) == 3
    benchmark.main(arguments)
    assert (out / "table.md").read_text() == table
    assert {path: path.stat().st_mtime_ns for path in out.rglob("last.safetensors")} == weights
    with pytest.raises(SystemExit):
        benchmark.main([*arguments, "--add", "9"])
