"""Ablations of tiny runs: which settings are trained, and the differences they make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from u2pl.config.overrides import load_config
from u2pl.errors import InputError
from u2pl.experiments.ablation import plan_ablation
from u2pl.experiments.trials import Planner

Ablate = Callable[..., Any]
AXES = {"method.mixing.name": ["cutmix", "none"], "train.scale_range": ["[0.5,2.0]", "[1,1]"]}


@pytest.fixture(scope="module")
def finished(tiny_ablate: Ablate, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, str]:
    """Folder, records and output; not to be written to. The first value of each axis is the reference's."""
    out = tmp_path_factory.mktemp("finished") / "all"
    return out, *tiny_ablate(out, axes=AXES, seeds=[0, 1])


def test_what_equals_the_reference_is_trained_once(finished: tuple[Path, Any, str]) -> None:
    out, records, _ = finished
    names = ["reference", "method.mixing.name_none", "train.scale_range_1_1"]
    expected = [f"{name}-{seed}" for seed in (0, 1) for name in names]
    assert [Path(record.folder).name for record in records] == expected
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*expected, "results.json", "table.md", "plot.png", "report.html"]
    )
    for seed in (0, 1):
        reference = load_config(out / f"reference-{seed}" / "config.yaml")
        mixing = load_config(out / f"method.mixing.name_none-{seed}" / "config.yaml")
        assert reference.seed == seed
        assert mixing.model_copy(update={"method": reference.method}) == reference
        assert (reference.method.mixing.name, mixing.method.mixing.name) == ("cutmix", "none")


def test_the_table_against_hand_computation(finished: tuple[Path, Any, str]) -> None:
    out, _, printed = finished
    results = json.loads((out / "results.json").read_text())

    def scores(name: str) -> list[float]:
        return [result["miou"] for result in results if result["name"] == name]

    def cell(name: str) -> str:
        first, second = scores(name)
        return f"{(first + second) / 2:.2f} ± {abs(first - second) / 2**0.5:.2f}"

    def gain(name: str) -> str:
        return f"{(sum(scores(name)) - sum(scores('reference'))) / 2:+.2f}"

    none, one = "method.mixing.name=none", "train.scale_range=[1,1]"
    table = (out / "table.md").read_text(encoding="utf-8").split("\n\n")[0]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()] == [
        ["axis", "value", "mIoU", "difference"],
        ["---", "---", "---:", "---:"],
        ["reference", "", cell("reference"), ""],
        ["method.mixing.name", "cutmix", cell("reference"), "(is the reference)"],
        ["method.mixing.name", "none", cell(none), gain(none)],
        ["train.scale_range", "[0.5,2.0]", cell("reference"), "(is the reference)"],
        ["train.scale_range", "[1,1]", cell(one), gain(one)],
    ]
    assert len({cell(name) for name in ("reference", none, one)}) == 3
    assert gain(none) in printed


def test_the_plot_can_be_opened(finished: tuple[Path, Any, str]) -> None:
    with Image.open(finished[0] / "plot.png") as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (1050, round(150 * (0.9 + 2 * 0.45 + 4 * 0.32))))


def test_what_is_finished_is_not_trained_again(
    finished: tuple[Path, Any, str], tiny_ablate: Ablate, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, records, _ = finished
    monkeypatch.delattr("u2pl.experiments.running.train")
    assert tiny_ablate(out, axes=AXES, seeds=[0, 1])[0] == records


def test_a_grid_is_every_combination(tmp_path: Path, tiny_overrides: tuple[str, ...]) -> None:
    planner = Planner("scenes", tiny_overrides, tmp_path)
    axes = {"method.mixing.name": ["cutmix", "none"], "method.reliability.alpha": ["0.1", "0.20", "0.3"]}
    settings = plan_ablation(planner, axes=axes, grid=True, seeds=())
    assert [(setting.axis, setting.value) for setting in settings] == [
        ("reference", ""),
        *(
            ("method.mixing.name, method.reliability.alpha", f"{m}, {a}")
            for m in ("cutmix", "none")
            for a in ("0.1", "0.20", "0.3")
        ),
    ]
    assert settings[2].trials == settings[0].trials
    assert len({trial.folder for setting in settings for trial in setting.trials}) == 6
    for setting in settings[1:]:
        method = setting.trials[0].config.method
        assert setting.value.split(", ")[0] == method.mixing.name
        assert float(setting.value.split(", ")[1]) == method.reliability.alpha


def test_equal_settings_of_several_axes_are_trained_once(tmp_path: Path, tiny_overrides: tuple[str, ...]) -> None:
    planner = Planner("scenes", tiny_overrides, tmp_path)
    axes = {"train.steps": ["9"], "train.epochs": ["3.6"], "data.labeled": ["3", "2"]}  # 3.6 passes over 5 images
    reference, steps, epochs, same, fewer = plan_ablation(planner, axes=axes, grid=False, seeds=[4])
    assert steps.trials[0].config.train.steps == 9
    assert epochs.trials == steps.trials != reference.trials
    assert same.trials == reference.trials
    assert (fewer.trials[0].images, fewer.trials[0].seed) == (2, 4)


def test_a_dry_run_and_bad_input_train_nothing(tiny_ablate: Ablate, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _, printed = tiny_ablate(out, axes=AXES, dry_run=True)
    assert "3 runs in" in printed
    for axes, fragment in (
        ({}, "nothing to ablate; give --axis"),
        ({"seed": ["1", "2"]}, "--axis seed: give --seeds"),
        ({"method.reliability.alpha": ["0.1", "2"]}, "method.reliability.alpha=2: method.reliability.alpha: should be"),
        ({"method.reliability.alhpa": ["0.1"]}, "unknown key method.reliability.alhpa (did you mean alpha?)"),
        (
            {"method.negative_keys.low_rank": ["1", "10"]},
            "method.negative_keys.low_rank=10: method.negative_keys: low_rank and high_rank: 10",
        ),
        ({"method.alpha": ["0.1"]}, "method.alpha is now method.reliability.alpha"),
    ):
        with pytest.raises(InputError) as caught:
            tiny_ablate(out, axes=axes)
        assert fragment in str(caught.value)
    assert not out.exists()
