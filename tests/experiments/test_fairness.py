"""Comparisons: what helps one method only is refused, and what differs is printed."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from u2pl.config.overrides import load_config
from u2pl.config.schema import all_keys
from u2pl.errors import InputError
from u2pl.experiments.comparison import compare
from u2pl.experiments.fairness import HELP, differences, require_fairness, uses

SEMI = ("mean_teacher", "fixmatch", "unimatch", "unimatch_v2", "u2pl")


def refused(shared: Sequence[str], methods: Sequence[str]) -> str | None:
    lines = {name: load_config("folder", [*shared, f"method.name={name}"]) for name in methods}
    try:
        require_fairness(load_config("folder", shared), lines)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("setting", "helped", "lacking"),
    [
        ("method.feature_dropout=true", "mean_teacher, u2pl", "fixmatch, unimatch, unimatch_v2"),
        ("method.complementary_dropout=true", "mean_teacher, u2pl", "fixmatch, unimatch, unimatch_v2"),
        ("method.loss_weights.negative=0.5", "mean_teacher, u2pl", "fixmatch, unimatch, unimatch_v2"),
        ("method.masked_consistency=true", "mean_teacher, unimatch_v2, u2pl", "fixmatch, unimatch"),
        ("method.strong_views.number=2", "mean_teacher, u2pl", "fixmatch, unimatch, unimatch_v2"),
    ],
)
def test_help_for_some_methods_only_is_refused(setting: str, helped: str, lacking: str) -> None:
    line = refused((setting,), ("supervised", *SEMI))
    assert line is not None
    assert line.startswith(f"{setting}: helps {helped}, but {lacking} cannot use it")
    assert f'--variant "NAME: method.name=mean_teacher {setting}"' in line
    assert refused((setting,), ("supervised", "mean_teacher", "u2pl")) is None
    assert refused((setting,), ("supervised", "u2pl")) is None  # labels alone get no help
    assert refused((setting,), ("fixmatch", "unimatch")) is None  # nobody uses it


@pytest.mark.parametrize(
    "setting",
    [
        *("method.contrast.temperature=0.2", "method.reliability.alpha=0.1", "method.schedule.warmup=0.3"),
        *("method.threshold=0.8", "method.image_prior.sharpness=8", "method.alignment=true", "train.lr=0.01"),
        *("method.unsupervised_loss.name=balanced", "method.mixing.name=classmix", "method.teacher.ema_decay=0.9"),
    ],
)
def test_a_method_s_own_parts_and_what_all_get_are_fair(setting: str) -> None:
    assert refused((setting,), ("supervised", *SEMI)) is None


def test_every_key_of_a_method_is_known_to_be_used_or_not() -> None:
    for name in ("supervised", *SEMI, "weak_u2pl"):
        method = load_config("folder", [f"method.name={name}"]).method
        used = {key for key, _ in all_keys() if uses(key, method)}
        assert "train.lr" in used
        assert "method.supervised_loss.name" in used
        assert ("method.mixing.name" in used) == (name != "supervised")
        assert ("method.threshold" in used) == (name in ("fixmatch", "unimatch", "unimatch_v2"))
        assert ("method.schedule.warmup" in used) == (name in ("mean_teacher", "u2pl", "weak_u2pl"))
        assert ("method.contrast.temperature" in used) == (name in ("u2pl", "weak_u2pl"))
        assert ("method.teacher.ema_decay" in used) == (name in ("mean_teacher", "unimatch_v2", "u2pl", "weak_u2pl"))
    assert set(HELP) <= {key for key, _ in all_keys()}


PARTITIONS = ("mean_teacher", "u2pl", "weak_u2pl")
TEACHER, CONTRAST = (*PARTITIONS, "unimatch_v2"), ("u2pl", "weak_u2pl")


@pytest.mark.parametrize(
    ("key", "users"),
    [
        ("method.reliability.alpha", PARTITIONS),
        ("method.schedule.ramp", PARTITIONS),
        ("method.weighting.name", PARTITIONS),
        ("method.feature_dropout", PARTITIONS),
        ("method.teacher.ema_decay", TEACHER),
        ("method.masked_consistency", TEACHER),
        ("method.negative_keys.low_rank", CONTRAST),
        ("method.loss_weights.contrastive", CONTRAST),
        ("method.prototypes", CONTRAST),
        ("method.denoising", CONTRAST),
        ("method.cam.scales", ("weak_u2pl",)),
        ("method.loss_weights.classification", ("weak_u2pl",)),
        ("method.alignment", (*SEMI, "weak_u2pl")),
        ("method.loss_weights.unsupervised", (*SEMI, "weak_u2pl")),
        ("method.loss_weights.auxiliary", ("supervised", *SEMI, "weak_u2pl")),
    ],
)
def test_who_uses_a_key(key: str, users: Sequence[str]) -> None:
    every = ("supervised", *SEMI, "weak_u2pl")
    assert {name for name in every if uses(key, load_config("folder", [f"method.name={name}"]).method)} == set(users)


def test_negative_learning_uses_negative_keys_without_a_contrast() -> None:
    keys = ("method.name=mean_teacher", "method.loss_weights.negative=0.5")
    assert uses("method.negative_keys.low_rank", load_config("folder", keys).method)


def rows(*lines: tuple[str, ...], labeled: Sequence[str] = (), seeds: Sequence[int] = ()) -> dict[str, tuple[Any, ...]]:
    """The cells of each row, of lines with these settings."""
    trials = [
        SimpleNamespace(
            name=str(place),
            labeled=labeled[place] if labeled else "4",
            seed=seeds[place] if seeds else 0,
            config=load_config("folder", [*each, f"seed={place}", f"data.labeled={place + 1}"]),
        )
        for place, each in enumerate(lines)
    ]
    table = differences(trials)  # type: ignore[arg-type]
    return {} if table is None else {str(cells[0]): cells[1:] for cells, _ in table.rows}


def test_only_settings_that_two_lines_use_differ() -> None:
    u2pl, fixmatch = "method.name=u2pl", "method.name=fixmatch"
    assert rows((u2pl,), (fixmatch,)) == rows((fixmatch,), (fixmatch,)) == {}
    assert rows((u2pl, "method.reliability.alpha=0.1"), (fixmatch,)) == {}  # its own
    assert rows((u2pl, "train.lr=0.5"), (fixmatch, "train.lr=0.25")) == {"train.lr": ("0.5", "0.25")}
    assert rows((u2pl, "method.masked_consistency=true"), (fixmatch,))["method.masked_consistency"] == ("true", "-")
    strict = rows((u2pl, "method.strong_views.number=2"), (u2pl,), (fixmatch,))
    assert strict == {"method.strong_views.number": ("2", "1", "-")}
    assert rows((u2pl, "method.alignment=true"), (u2pl,))["method.alignment"] == ("true", "null")


def test_lines_are_compared_at_one_number_of_labels_and_one_seed() -> None:
    one, other = ("train.lr=0.5",), ("train.lr=0.25",)
    assert rows(one, other, seeds=(0, 1)) == {}
    assert rows(one, other, labeled=("4", "8")) == {}
    assert rows(one, other) == {"train.lr": ("0.5", "0.25")}


def test_a_comparison_prints_what_differs_and_refuses_before_any_run(
    write_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = write_folder({**{f"train/{n}": (0, 1, 2) for n in "abcd"}, "train/x": None, "val/v": (0, 1)})
    shared = [
        *(
            f"data.root={root}",
            "data.val=val",
            "train.accelerator=cpu",
            "network.embedding_dim=8",
            "network.channels=32",
        ),
        *("train.crop_size=32", "network.encoder=mobilenet_v2"),
    ]
    console = Console(file=io.StringIO(), width=200)
    variants = {"steady": ("method.name=mean_teacher", "method.teacher.ema_decay=0.5", "method.feature_dropout=true")}
    compare(
        "folder", shared, out=tmp_path / "out", methods=("supervised", "mean_teacher", "fixmatch"), variants=variants,
        dry_run=True, console=console,
    )  # fmt: skip
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    begin = next(number for number, line in enumerate(lines) if line.startswith("settings that differ"))
    rows = {line.split()[0]: line.split()[1:] for line in lines[begin + 1 : begin + 4]}
    assert rows["setting"] == ["supervised", "mean_teacher", "fixmatch", "steady"]
    assert rows["method.feature_dropout"] == ["-", "false", "-", "true"]
    supervised, one, fixmatch, other = rows["method.teacher.ema_decay"]
    assert (supervised, fixmatch, other) == ("-", "-", "0.5")
    assert float(one) > 0.9
    with pytest.raises(InputError, match=r"^method\.feature_dropout=true: helps mean_teacher, but fixmatch cannot"):
        compare(
            "folder", [*shared, "method.feature_dropout=true"], out=tmp_path / "out",
            methods=("mean_teacher", "fixmatch"), console=console,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
