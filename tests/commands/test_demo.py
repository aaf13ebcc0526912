"""The demo's settings; its trainings are as small as they can be."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tiny_run import build_tiny
from u2pl.commands import demo
from u2pl.commands.demo import SETTINGS, demo_config, run_demo, setting_of
from u2pl.config.overrides import load_config
from u2pl.config.schema import Config
from u2pl.errors import InputError

SIZES = {"train": 12, "val": 2, "height": 32, "width": 48}
TINY = (
    *(
        "data.workers=0",
        "network.embedding_dim=8",
        "method.schedule.warmup=0",
        "method.contrast.bank_size=16",
        "method.contrast.keys_per_step=8",
    ),
    *("train.steps=2", "train.batch_size=2", "train.crop_size=32", "train.accelerator=cpu", "train.precision=fp32"),
)


def small(config: Config) -> Config:
    """The same on a few small scenes."""
    parts = [config.data] if config.data.source is None else [config.data.source, config.data.target]
    for part in parts:
        for key, value in SIZES.items():
            setattr(part, key, value)
    return config


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("u2pl.commands.checks.build_network", build_tiny)
    monkeypatch.setattr("u2pl.build.trained.build_network", build_tiny)
    monkeypatch.setattr(demo, "load_config", lambda name, overrides: small(load_config(name, [*overrides, *TINY])))


def test_the_setting_of_few_labels_is_the_preset_scenes() -> None:
    for method in ("supervised", "u2pl"):
        expected = load_config("scenes", [f"method.name={method}", "seed=3"])
        assert demo_config(SETTINGS["semi"], method, seed=3) == expected
        assert demo_config(SETTINGS["semi"], method, steps=9).train.steps == 9


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_compares_methods_of_one_preset(name: str) -> None:
    setting = setting_of(name)
    configs = [demo_config(setting, column) for column in setting.columns]
    assert setting.stages or configs[0].method != configs[1].method
    assert len({config.model_copy(update={"method": configs[0].method}).to_yaml() for config in configs}) == 1
    assert setting.about.format(labeled=1, unlabeled=2) != setting.about


def test_another_setting_is_told() -> None:
    with pytest.raises(InputError, match=r"^--setting: there is no 'dommain'; give semi, domain"):
        setting_of("dommain")


@pytest.mark.parametrize(
    ("name", "folder", "title", "baseline"),
    [
        ("semi", "demo", "6 labeled, 6 unlabeled scenes; validation IoU %, seed 1", "supervised"),
        ("domain", "demo-domain", "12 labeled scenes by day, 12 unlabeled ones by night; IoU %", "source only"),
        ("weak", "demo-weak", "12 scenes with tags, 0 labeled ones; validation IoU %, maps told the tags", "cam"),
    ],
)
def test_a_demo(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str, title: str, baseline: str
) -> None:
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    scores = run_demo(None, Console(file=out, width=160), setting=name, seed=1)
    said = " ".join(out.getvalue().split())
    assert title in said
    stages = ["cam", "refined"] if name == "weak" else []
    assert (f"class {baseline} u2pl gain" if not stages else "class cam refined u2pl") in said
    assert f"u2pl gains {scores['u2pl'].miou - scores[baseline].miou:+.1f} mIoU" in said
    root = tmp_path / "runs" / folder
    assert list(json.loads((root / "table.json").read_text())) == list(scores) == [*stages, *SETTINGS[name].columns]
    assert (root / "pictures" / "comparison.png").stat().st_size > 0
    folders = {column.replace(" ", "_") for column in SETTINGS[name].columns}
    assert {path.name for path in root.iterdir()} == folders | {"pictures", "table.json"}
    method = "weak_u2pl" if name == "weak" else "supervised"
    assert load_config(root / sorted(folders)[0] / "config.yaml").method.name == method
