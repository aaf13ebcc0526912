"""Trials are built before any training: folders, parameters, and whatever is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from u2pl.build import build_source
from u2pl.errors import InputError
from u2pl.experiments.trials import Planner, safe_name

Overrides = tuple[str, ...]


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("u2pl", "23", "0"), "u2pl-23-0"),
        (("u2pl", "splits/92/labeled.txt", "1"), "u2pl-splits_92_labeled.txt-1"),
        (("two words: ü/..", "0.5", "0"), "two_words-0.5-0"),
        (("train.scale_range=[0.5,2.0]", "0"), "train.scale_range_0.5_2.0-0"),
        (("../..", "0"), "_-0"),
    ],
)
def test_folders_have_safe_names(parts: tuple[str, ...], name: str) -> None:
    assert safe_name(*parts) == name


def test_long_names_stay_apart() -> None:
    names = {safe_name("a" * 300 + letter + "b" * 300, "0") for letter in "xyz"}
    assert len(names) == 3
    assert max(map(len, names)) <= 120


def test_names_that_would_share_a_folder(tmp_path: Path, tiny_overrides: Overrides) -> None:
    planner = Planner("scenes", tiny_overrides, tmp_path)
    planner.trial(("a b", "0"), (), seed=0)
    planner.trial(("a b", "0"), (), seed=0)
    for name in ("a_b", "A B"):
        with pytest.raises(InputError, match=r"would share the folder .*; name them apart"):
            planner.trial((name, "0"), (), seed=0)


def test_a_trial_tells_what_is_trained(tmp_path: Path, tiny_overrides: Overrides) -> None:
    planner = Planner("scenes", [*tiny_overrides, "train.epochs=3"], tmp_path)
    trial = planner.trial(("ours", "2", "5"), ("method.name=u2pl", "data.labeled=2"), seed=5)
    assert trial.folder == tmp_path / "ours-2-5"
    assert (trial.images, trial.labeled, trial.seed, trial.config.seed) == (2, "2", 5, 5)
    assert trial.config.train.steps == 9  # 3 passes over 6 unlabeled images, two a step
    used = (3 * 9 + 1) * 8 + 2 * 8 + (8 + 1) * 10
    assert (trial.parameters, trial.training_parameters) == (used, used + (8 + 1) * 8)
    plain = planner.trial(("plain", "0"), ("method.name=supervised",), seed=0)
    assert (plain.parameters, plain.training_parameters) == (used, used)
    assert not any(tmp_path.iterdir())


def test_trials_share_what_is_built(tmp_path: Path, tiny_overrides: Overrides, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []

    def counting(build: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            built.append(build)
            return build(*args, **options)

        return call

    monkeypatch.setattr("u2pl.experiments.trials.build_source", counting(build_source))
    planner = Planner("scenes", tiny_overrides, tmp_path)
    for alpha in (0.1, 0.2, 0.3):
        for seed in (0, 1):
            planner.trial((f"{alpha}", f"{seed}"), (f"method.reliability.alpha={alpha}",), seed=seed)
    assert len(built) == 2


@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("method.name=fixmach", "method.name: should be"),
        ("method.reliability.alhpa=1", "unknown key method.reliability.alhpa (did you mean alpha?)"),
        ("method.reliability.alpha=2", "method.reliability.alpha: should be"),
        ("data.labeled=99", "data.labeled: 99"),
        ("data.labeled=1.0", "there is no unlabeled image"),
        ("data.val=0", "data.val: there is no validation set"),
        ("method.negative_keys.low_rank=10", "method.negative_keys: low_rank and high_rank: 10"),
        ("method.contrast.keys_per_step=999", "method.contrast.keys_per_step: 999"),
        ("train.crop_size=1000000", "train.crop_size"),
        ("train.precision=fp16", "train.precision: fp16 needs a GPU"),
        ("nothing", "'nothing' is not a setting"),
    ],
)
def test_bad_input_names_the_trial(tmp_path: Path, tiny_overrides: Overrides, override: str, fragment: str) -> None:
    planner = Planner("scenes", tiny_overrides, tmp_path)
    with pytest.raises(InputError) as caught:
        planner.trial(("ours", "0"), (override,), seed=0)
    assert str(caught.value).startswith("ours: ")
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_bad_input_that_all_share_names_none(tmp_path: Path, tiny_overrides: Overrides) -> None:
    with pytest.raises(InputError, match=r"^unknown key train\."):
        Planner("scenes", [*tiny_overrides, "train.step=3"], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--out .*file is a file; give a folder"):
        Planner("scenes", tiny_overrides, tmp_path / "file")
