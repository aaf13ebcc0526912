"""Two domains in a comparison: the numbers of labels are the source's, all labels the target's."""

from __future__ import annotations

from pathlib import Path

from u2pl.experiments.comparison import plan_comparison
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
