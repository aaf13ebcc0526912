"""Keys that have moved: told by their names of today; and whole configurations of an earlier version's runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

from u2pl.build import build_method
from u2pl.config.former import FORMER, upgraded
from u2pl.config.overrides import load_config, load_saved
from u2pl.config.part import build_choice
from u2pl.config.parts import UNSUPERVISED_LOSSES
from u2pl.config.preset_files import preset_names
from u2pl.config.schema import Config, all_keys
from u2pl.errors import InputError

KEYS = dict(all_keys())
BEGUN = sorted((Path(__file__).parents[1] / "golden" / "begun").glob("*/config.yaml"))
#: What these were is in the value of another key.
FOLDED = ("method.strong_view", "method.denoise_temperature", "data.rare_class_temperature")
#: Keys of parts that the run does not use are gone.
OF_OTHER_PARTS = {
    "method.ohem_threshold": ("method.loss", "ohem"),
    "method.ohem_min_kept": ("method.loss", "ohem"),
    "method.max_lambda_u": ("method.unsupervised_weighting", "lambda_u"),
}


def error(source: str | Path | None, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_config(source, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def former(path: Path = BEGUN[0], **changes: Any) -> dict[str, Any]:
    """The configuration of a run that an earlier version began, with other values of the flat keys of its method."""
    tree = yaml.safe_load(path.read_text())
    data = {key: changes.pop(key) for key in list(changes) if key in tree["data"]}
    assert set(changes) <= set(tree["method"])
    return {**tree, "data": {**tree["data"], **data}, "method": {**tree["method"], **changes}}


def saved(tmp_path: Path, tree: dict[str, Any]) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_saved(path)


def leaves(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= leaves(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return found


@pytest.mark.parametrize(("key", "new"), FORMER.items())
def test_a_former_key_is_told_by_its_name_of_today(key: str, new: str, tmp_path: Path) -> None:
    assert key not in KEYS or key in ("method.alignment",)
    assert new in KEYS
    section, name = key.split(".")
    path = tmp_path / "mine.yaml"
    for value in (0.5, "auto", "x"):
        told = error("scenes", f"{key}={value}")
        assert told.startswith(f"{key} is now {new}")
        assert told == error(None, f"{section}={{{name}: {value}}}")
        path.write_text(yaml.safe_dump({section: {name: value}}))
        assert error(path) == told
        path.write_text(yaml.safe_dump({"base": "scenes", section: {name: value}, "seed": 3}))
        assert error(path, "seed=4") == told


def test_an_experiment_on_a_former_file_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("method: {ema_decay: 0.9}\n")
    (tmp_path / "mine.yaml").write_text("base: base.yaml\nseed: 2\n")
    assert error(tmp_path / "mine.yaml") == "method.ema_decay is now method.teacher.ema_decay"


def test_what_else_is_to_be_done_is_told() -> None:
    assert error(None, "method.symmetric=0.1").endswith("; set method.unsupervised_loss.name=symmetric with it")
    assert error(None, "method.strong_view=false").endswith("method.strong_views.jitter: unlabeled, mixed or none")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("method.contrast=false", "method.contrast", None),
        ("method.prototypes=true", "method.prototypes.momentum", 0.999),
        ("method.prototypes=false", "method.prototypes", None),
        ("data.rare_class_sampling=true", "data.rare_class_sampling.temperature", 0.01),
        ("data.rare_class_sampling=false", "data.rare_class_sampling", None),
        ("method.mixing={name: classmix}", "method.mixing.name", "classmix"),
        ("method.image_prior={sharpness: 2}", "method.image_prior.sharpness", 2.0),
        ("method.unsupervised_loss={name: balanced}", "method.unsupervised_loss.name", "balanced"),
    ],
)
def test_former_names_that_mean_the_same_today(override: str, key: str, value: Any) -> None:
    assert load_config("scenes", [override]).value(key) == value


@pytest.mark.parametrize("name", preset_names())
def test_no_preset_has_a_former_key(name: str) -> None:
    assert isinstance(load_config(name), Config)


@pytest.mark.parametrize("path", BEGUN, ids=lambda path: path.parent.name)
def test_a_run_that_was_begun_keeps_every_value(path: Path) -> None:
    before, config = leaves(former(path)), load_saved(path)
    assert config == Config.model_validate(upgraded(former(path)))
    kept = 0
    for key, value in before.items():
        if key in FOLDED:
            continue
        if key in OF_OTHER_PARTS:
            chosen_by, part = OF_OTHER_PARTS[key]
            if before[chosen_by] != part:
                assert config.value(FORMER[key]) is None
                continue
        now = config.value(FORMER.get(key, key))
        kept += 1
        if key in (
            "method.align",
            "method.contrast",
            "method.denoise",
            "method.prototypes",
            "data.rare_class_sampling",
        ):
            assert (now is not None) == value, key
        elif key == "method.symmetric":
            loss = build_choice(config.method.unsupervised_loss, UNSUPERVISED_LOSSES, "method.unsupervised_loss")
            assert getattr(loss, "reverse_weight", 0.0) == value
        elif key == "method.unsupervised_loss":
            assert now == ("symmetric" if before["method.symmetric"] else value)
        elif key in OF_OTHER_PARTS and now is None:  # a default of the part
            assert value == {"method.ohem_threshold": 0.7, "method.ohem_min_kept": 100_000}.get(key), key
        else:
            assert (now, type(now)) == (value, type(value)), key
    assert kept > 100
    if before["method.denoise"]:
        assert config.value("method.denoising.temperature") == before["method.denoise_temperature"]
    if before["data.rare_class_sampling"]:
        assert config.value("data.rare_class_sampling.temperature") == before["data.rare_class_temperature"]
    method = build_method(config.method, nn.Linear(2, 2), num_classes=10, embedding_dim=8)
    assert method.semi_supervised


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"strong_view": False, "jitter": "mixed"}, {"method.strong_views.jitter": "none"}),
        ({"strong_view": True, "jitter": "mixed"}, {"method.strong_views.jitter": "mixed"}),
        ({"contrast": False}, {"method.contrast": None, "method.negative_keys.pixels": "unreliable"}),
        (
            {"symmetric": 0.3},
            {"method.unsupervised_loss.name": "symmetric", "method.unsupervised_loss.reverse_weight": 0.3},
        ),
        ({"symmetric": 0.0, "unsupervised_loss": "balanced"}, {"method.unsupervised_loss.name": "balanced"}),
        (
            {"loss": "ohem", "ohem_threshold": 0.6, "ohem_min_kept": 9},
            {
                **{"method.supervised_loss.name": "ohem", "method.supervised_loss.threshold": 0.6},
                "method.supervised_loss.min_kept": 9,
            },
        ),
        (
            {"loss": "balanced", "ohem_threshold": 0.6},
            {"method.supervised_loss.name": "balanced", "method.supervised_loss.threshold": None},
        ),
        (
            {"unsupervised_weighting": "confident_share", "threshold": 0.9, "max_lambda_u": 3.0},
            {
                **{"method.weighting.name": "confident_share", "method.weighting.threshold": 0.9},
                **{"method.weighting.maximum": None, "method.threshold": 0.9},
            },
        ),
        (
            {"unsupervised_weighting": "confident_share", "threshold": 0.95},
            {"method.weighting.threshold": 0.95},  # 0.968 is the default of today
        ),
        (
            {"unsupervised_weighting": "lambda_u", "max_lambda_u": 3.0},
            {"method.weighting.maximum": 3.0, "method.weighting.threshold": None},
        ),
        ({"unsupervised_weighting": "reliable_share", "max_lambda_u": 3.0}, {"method.weighting.maximum": None}),
        ({"denoise": True, "denoise_temperature": 0.4}, {"method.denoising.temperature": 0.4}),
        ({"denoise": False, "denoise_temperature": 0.4}, {"method.denoising": None}),
        ({"align": True}, {"method.alignment.momentum": 0.99}),
        ({"align": False}, {"method.alignment": None}),
        (
            {"rare_class_sampling": True, "rare_class_temperature": 0.2},
            {"data.rare_class_sampling.temperature": 0.2},
        ),
        ({"rare_class_sampling": False}, {"data.rare_class_sampling": None}),
        (
            {"name": "weak_u2pl", "cam_high": 0.7, "pamr_dilations": [1], "seed_share": 0.1, "tag_negatives": False},
            {
                **{"method.cam.high": 0.7, "method.cam.refinement.dilations": [1], "method.cam.share": 0.1},
                "method.negative_keys.tags": False,
            },
        ),
        (
            {"loss": "auto", "unsupervised_loss": "auto", "unsupervised_weighting": "auto", "mixing": "auto"},
            {f"method.{name}.name": "auto" for name in ("supervised_loss", "unsupervised_loss", "weighting", "mixing")},
        ),
    ],
)
def test_each_choice_of_a_former_run_is_kept(changes: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    data = {key: value for key, value in changes.items() if key.startswith("rare_class")}
    tree = former(**{key: value for key, value in changes.items() if key != "name"})
    if "name" in changes:
        tree["method"]["name"] = changes["name"]
    assert not data or tree["data"]["rare_class_sampling"] == data["rare_class_sampling"]
    config = saved(tmp_path, tree)
    assert {key: config.value(key) for key in expected} == expected


def test_only_a_saved_configuration_is_translated(tmp_path: Path) -> None:
    """What a person writes is told, so that it is written anew."""
    assert error(BEGUN[0]).startswith(("data.rare_class_temperature is now ", "method.loss is now "))
    today = load_config("weak").model_dump()
    assert upgraded(today) == today
    assert saved(tmp_path, today) == load_config("weak")
    assert upgraded({}) == {}


def test_a_saved_configuration_can_be_overridden_by_the_keys_of_today() -> None:
    overrides = ["method.reliability.alpha=0.4", "data.name=folder", "data.root=X"]
    config = load_saved(BEGUN[0], overrides)
    assert (config.method.reliability.alpha, config.data.root, config.data.train) == (0.4, "X", None)
    with pytest.raises(InputError, match=r"^method\.alpha is now method\.reliability\.alpha$"):
        load_saved(BEGUN[0], ["method.alpha=0.4"])
    with pytest.raises(InputError, match=r"^method\.reliability\.alpha: should be .*, not 4$"):
        load_saved(BEGUN[0], ["method.reliability.alpha=4"])


@pytest.mark.parametrize("missing", ["strong_view", "symmetric", "denoise", "unsupervised_weighting", "image_prior"])
def test_a_run_of_a_version_before_some_key_can_be_read(missing: str, tmp_path: Path) -> None:
    """The keys of methods have grown in number; what a run did not have, it did not do."""
    tree = former()
    del tree["method"][missing]
    assert saved(tmp_path, tree) == saved(tmp_path, former())
