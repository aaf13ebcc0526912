"""Two domains in a comparison: the numbers of labels are the source's, all labels the target's."""

from __future__ import annotations

from pathlib import Path

import pytest

from u2pl.errors import InputError
from u2pl.experiments.comparison import plan_comparison
from u2pl.experiments.comparison_plot import plot_comparison
from u2pl.experiments.comparison_table import comparison_grid
from u2pl.experiments.trials import Planner

SMALL = (
    *("data.source.train=6", "data.target.train=4", "data.target.val=2", "train.accelerator=cpu", "data.workers=0"),
    *("network.channels=8", "network.low_level_channels=8", "network.embedding_dim=8", "train.crop_size=32"),
)


def test_labels_are_of_the_source_and_the_upper_bound_is_of_the_target(tmp_path: Path) -> None:
    planner = Planner("domain", SMALL, tmp_path)
    trials = plan_comparison(
        planner, methods=("supervised", "u2pl"), variants={}, labeled=("2", "6"), seeds=(0,), all_labels=True
    )
    seen = [(trial.name, trial.labeled, trial.images, trial.config.data.upper_bound) for trial in trials]
    assert seen == [
        ("supervised", "2", 2, None),
        ("u2pl", "2", 2, None),
        ("supervised", "6", 6, None),
        ("u2pl", "6", 6, None),
        ("supervised, all labels", "all", 4, True),
    ]
    plain = plan_comparison(planner, methods=("u2pl",), variants={}, labeled=(), seeds=(0,), all_labels=False)
    assert [(trial.labeled, trial.images) for trial in plain] == [("all", 6)]


def test_labels_of_the_target_are_a_setting_of_all_lines_or_of_one(tmp_path: Path) -> None:
    """Columns stay the labels of the source."""
    shared = Planner("domain", (*SMALL, "data.target.labeled=3"), tmp_path / "shared")
    trials = plan_comparison(
        shared, methods=("supervised", "u2pl"), variants={}, labeled=("2", "6"), seeds=(0,), all_labels=True
    )
    assert [(trial.name, trial.labeled, trial.images, trial.target_images) for trial in trials] == [
        ("supervised", "2", 2, 3),
        ("u2pl", "2", 2, 3),
        ("supervised", "6", 6, 3),
        ("u2pl", "6", 6, 3),
        ("supervised, all labels", "all", 4, 0),
    ]
    assert comparison_grid(trials, {}).header[1:4] == ("2 + 3 labels", "6 + 3 labels", "all 4 labels")
    plain = Planner("domain", SMALL, tmp_path / "plain")
    variants = {f"{count} masks": ("method.name=supervised", f"data.target.labeled={count}") for count in (0, 1, 3)}
    trials = plan_comparison(plain, methods=(), variants=variants, labeled=("6",), seeds=(0, 1), all_labels=False)
    assert [trial.target_images for trial in trials] == 2 * [0, 1, 3]
    assert comparison_grid(trials, {}).header[1] == "6 or 6 + 1 or 6 + 3 labels"
    plot_comparison(tmp_path / "plot.png", trials, {})
    with pytest.raises(InputError, match=r"u2pl: there is no unlabeled image; lower data\.target\.labeled"):
        shared.trial(("u2pl",), ("method.name=u2pl", "data.target.labeled=4"), seed=0)
