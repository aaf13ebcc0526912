"""What compared runs have in common where their configuration says `auto`."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torchvision.models import resnet18

from u2pl.auto.rules import method as labels
from u2pl.config.schema import all_keys, section_in
from u2pl.experiments.ablation import ablate
from u2pl.experiments.comparison import ALL_LABELS, compare, plan_comparison
from u2pl.experiments.trials import Planner, Trial
from u2pl.report.differences import unlike

ACCELERATOR = ("train.accelerator=cpu", "train.precision=fp32", "network.embedding_dim=8")


@pytest.fixture
def shared(write_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Seven images for training and one for validation; two labels are few, four are not."""
    monkeypatch.setattr(labels, "FEW_LABELS", 2)
    monkeypatch.setattr(labels, "FEW_PER_CLASS", 0)
    masks: dict[str, tuple[int, ...] | None] = {f"train/{name}": (0, 1, 2) for name in "abcde"}
    root = write_folder({**masks, "train/f": None, "train/g": None, "val/v": (0, 1)})
    return [f"data.root={root}", "data.val=val", *ACCELERATOR]


def test_methods_are_trained_alike(shared: list[str], tmp_path: Path) -> None:
    trials = plan_comparison(
        Planner("folder", shared, tmp_path),
        methods=("supervised", "mean_teacher", "fixmatch", "u2pl"),
        variants={"larger": ("method.name=u2pl", "network.encoder=resnet34"), "own": ("train.lr=0.5",)},
        labeled=("2", "4"),
        seeds=(0, 1),
        all_labels=True,
    )
    assert len(trials) == 26
    configs = {trial.folder.name: trial.config for trial in trials}
    assert not any(config.auto_keys() for config in configs.values())
    first = configs["supervised-2-0"]
    for trial in trials:
        expected = first.train if trial.name != "own" else first.train.model_copy(update={"lr": 0.5})
        assert trial.config.train == expected, trial.name
        assert trial.config.network.architecture == "FPN"
        assert trial.config.data.cache is True
    assert trials[-1].name == ALL_LABELS
    unlike_first = {name: unlike(configs[f"{name}-2-0"], first) for name in ("mean_teacher", "fixmatch", "u2pl")}
    assert not any(unlike_first.values())  # so the report of each compares it with labels alone
    assert unlike(configs["larger-2-0"], first) == {"network.encoder": ("resnet34", first.network.encoder)}
    assert [configs[f"u2pl-{labels}-0"].method.schedule.warmup for labels in (2, 4)] == [0.4, 0.25]  # the method's own


def test_variants_that_change_the_data_are_trained_as_long(shared: list[str], tmp_path: Path) -> None:
    """Where a line would have other facts, the shared configuration decides; what the line sets, it has."""
    planner = Planner("folder", shared, tmp_path)
    trials = [
        planner.trial((name, "0"), (*overrides, "data.labeled=2"), seed=0)
        for name, overrides in {
            "plain": (),
            "small": ("data.scale=0.5", "train.batch_size=2"),
            "longer": ("train.steps=5000",),
            "epochs": ("train.epochs=8",),
            "dinov2": ("network.encoder=dinov2_small",),
        }.items()
    ]
    assert [trial.config.train.steps for trial in trials] == [1200, 1200, 5000, 5, 1200]  # 8 passes over 5 by 8
    assert [trial.config.train.crop_size for trial in trials] == [32] * 5
    assert trials[1].config.train.batch_size == 2
    assert trials[-1].config.train.lr_warmup == 120  # the rates are those of the network


def test_a_pretrained_line_sees_the_images_of_the_others(shared: list[str], tmp_path: Path) -> None:
    """`auto` jitters labeled images by where weights come from, of all lines as of the shared configuration."""
    weights = tmp_path / "resnet18.pt"
    torch.save(resnet18().state_dict(), weights)
    planner = Planner("folder", shared, tmp_path / "out")
    overrides = ("data.labeled=2", f"network.weights={weights}")
    plain, pretrained = (
        planner.trial((name, "0"), own, seed=0).config.train
        for name, own in (("plain", overrides[:1]), ("pretrained", overrides))
    )
    assert (plain.jitter, pretrained.jitter) == (True, True)
    assert (plain.lr, pretrained.lr) == (1e-3, 1e-4)  # the rates are those of the network


def test_an_ablation_keeps_everything_else(shared: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials: list[Trial] = []
    monkeypatch.setattr("u2pl.experiments.ablation.run_into", lambda out, planned, **options: trials.extend(planned))
    axes = {
        "method.schedule.warmup": ("0.1", "auto"),
        "data.labeled": ("4",),
        "train.steps": ("400",),
        "train.batch_size": ("2",),
    }
    ablate("folder", [*shared, "data.labeled=2"], out=tmp_path, axes=axes, console=Console())
    reference, *changed = (trial.config for trial in trials)
    assert reference.method.schedule.warmup == 0.4
    keys = [name for name, field in all_keys() if section_in(field.annotation) is None]
    found = [[key for key in keys if config.value(key) != reference.value(key)] for config in changed]
    assert found == [[axis] for axis in axes]  # `auto` is the reference again, and not trained


def test_choices_are_told_once(shared: list[str], tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    options = {"methods": ("supervised", "u2pl"), "labeled": ("2", "4"), "dry_run": True, "console": console}
    compare("folder", shared, out=tmp_path / "out", **options)  # type: ignore[arg-type]
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = text.partition("chosen by `auto`:\n")[2].partition("4 runs in")[0].splitlines()
    rows = [re.split(r" {2,}", line) for line in lines]
    assert rows.count(["train.steps", "1200", "24 passes over 7 images; 1200 to 4000"]) == 1
    assert [row[0] for row in rows].count("train.steps") == 1
    assert [row for row in rows if row[0] == "method.schedule.warmup"] == [
        ["method.schedule.warmup", "0.4", "2 labels", "2 labels for 3 classes are few"],
        ["method.schedule.warmup", "0.25", "4 labels", "4 labels for 3 classes are not few"],
    ]
    reasons = [tuple(row) for row in rows if len(row) > 2]
    assert len(reasons) == len(set(reasons))
    assert not any("is seen" in line for line in lines)


def test_a_configuration_that_sets_everything_looks_at_nothing(
    tmp_path: Path, tiny_overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("u2pl.auto.resolving.facts_of", None)
    trial = Planner("scenes", tiny_overrides, tmp_path).trial(("a", "0"), (), seed=0)
    assert trial.choices == ()
