"""A configuration: presets, files, overrides, and errors that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from u2pl.config.overrides import load_config
from u2pl.config.preset_files import preset_names
from u2pl.config.reading import preset_text
from u2pl.config.schema import Config
from u2pl.errors import InputError


def get(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def error(*overrides: str, source: str | Path = "scenes") -> str:
    with pytest.raises(InputError) as caught:
        load_config(source, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_resolves_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "config.yaml") == config
    assert preset_text(name).startswith("# ")  # what `u2pl presets` says of it
    keys = {(section, key) for section, part in yaml.safe_load(preset_text(name)).items() for key in part}
    assert all(get(config, f"{section}.{key}") is not None for section, key in keys)


def test_the_saved_file_holds_every_key() -> None:
    saved = yaml.safe_load(load_config("scenes").to_yaml())
    assert list(saved) == ["data", "network", "method", "train", "evaluation", "seed"]
    for section in ("data", "network", "method", "train", "evaluation"):
        assert list(saved[section]) == list(getattr(Config(), section).model_dump())


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.steps=7", "train.steps", 7),
        ("train.lr=1e-3", "train.lr", 1e-3),  # YAML 1.1 reads this as text
        ("train.lr=.5", "train.lr", 0.5),
        ("seed=4", "seed", 4),
        ("train.crop_size=96", "train.crop_size", 96),
        ("train.crop_size=[96, 128]", "train.crop_size", [96, 128]),
        ("train.scale_range=[1,1]", "train.scale_range", [1.0, 1.0]),
        ("train.channels_last=false", "train.channels_last", False),
        ("data.classes=background, cat", "data.classes", ["background", "cat"]),
        ("data.classes=[a, b]", "data.classes", ["a", "b"]),
        ("data.classes=cat", "data.classes", ["cat"]),
        ("data.root=/a=b/c", "data.root", "/a=b/c"),
        ("data.val=null", "data.val", None),
        ("data.val=val", "data.val", "val"),
        ("data.labeled=46", "data.labeled", 46),
        ("data.labeled=0.25", "data.labeled", 0.25),
        ("data.labeled=1e-1", "data.labeled", 0.1),
        ("data.labeled=list.txt", "data.labeled", "list.txt"),
        ("network.multi_grid=[2,2,4]", "network.multi_grid", [2, 2, 4]),
        ("data.root=2012", "data.root", "2012"),  # a key that holds text takes what YAML reads otherwise
        ("data.root=2012_09", "data.root", "2012_09"),
        ("data.val=2024-01-05", "data.val", "2024-01-05"),
        ("data.val=7", "data.val", 7),
        ("network.encoder=on", "network.encoder", "on"),
        ("network.weights=null", "network.weights", None),
    ],
)
def test_overrides(override: str, key: str, value: Any) -> None:
    found = get(load_config("scenes", [override]), key)
    assert found == value
    assert type(found) is type(value)


def test_one_labeled_image_is_not_all_of_them() -> None:
    one, all_of_them = (load_config("scenes", [f"data.labeled={text}"]).data.labeled for text in ("1", "1.0"))
    assert type(one) is int
    assert type(all_of_them) is float


def test_the_last_override_wins_and_others_stay() -> None:
    config = load_config("scenes", ["train.steps=7", "train.steps=8"])
    assert config.train.steps == 8
    assert config.train.batch_size == load_config("scenes").train.batch_size


def test_a_file_of_some_keys_keeps_the_other_defaults(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("train: {steps: 5}\n")
    assert load_config(tmp_path / "mine.yml").train == Config().train.model_copy(update={"steps": 5})
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "empty.yaml") == Config()
    (tmp_path / "noending").write_text("seed: 3\n")
    assert load_config(str(tmp_path / "noending")).seed == 3


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.stepps=1", ("unknown key train.stepps", "did you mean steps?")),
        ("train.zzz=1", ("unknown key train.zzz", "known: steps, epochs, batch_size")),
        ("methods.name=u2pl", ("unknown key methods", "did you mean method?")),
        ("zzz=1", ("unknown key zzz", "known: data, network, method, train, evaluation, seed")),
        ("train.steps=x", ("train.steps: should be a valid integer", "not 'x'")),
        ("network.freeze=abc", ("network.freeze: should be a valid integer", "or true or false", "not 'abc'")),
        ("train.steps=1.5", ("train.steps: should be a valid integer", "not 1.5")),
        ("train.steps=-1", ("train.steps: should be greater than 0, not -1",)),
        ("train.lr=nan", ("train.lr",)),
        ("train.lr=.inf", ("train.lr", "finite")),
        ("train.crop_size=8", ("train.crop_size: should be greater than or equal to 16, not 8",)),
        ("train.crop_size=[8, 32]", ("train.crop_size: should be greater than or equal to 16, not 8",)),
        ("train.crop_size=[32, 32, 32]", ("train.crop_size: should have at most 2 items, not [32, 32, 32]",)),
        ("evaluation.scales=[]", ("evaluation.scales: should have at least 1 item, not []",)),
        ("network.std=[1, 1]", ("network.std: should have at least 3 items, not [1, 1]",)),
        ("network.std=[1, 0, 1]", ("network.std: should be greater than or equal to 0.001, not 0",)),
        ("train.steps=true", ("train.steps: ", "not True")),
        ("train.lr=yes", ("train.lr: ", "not True")),
        ("seed=true", ("seed: ", "not True")),
        ("method.strong_views.number=true", ("method.strong_views.number: ", "not True")),
        ("train.scale_range=[2, 1]", ("train.scale_range: should be two numbers from 0.01 to 100, the smaller first",)),
        ("train.scale_range=[0, 1]", ("train.scale_range",)),
        ("train.optimizer=adam", ("train.optimizer: should be 'sgd' or 'adamw', not 'adam'",)),
        ("data.classes=[1, 2]", ("data.classes: should be a valid string, not 1",)),
        ("data.scale=0", ("data.scale: should be greater than or equal to 0.01, not 0",)),
        ("method.schedule.warmup=2", ("method.schedule.warmup: should be less than or equal to 1, not 2",)),
        ("train=5", ("train: ",)),
        ("seed=-1", ("seed: should be greater than or equal to 0",)),
        ("train.steps.more=1", ("train.steps.more: steps is a value, not a section",)),
        ("train.steps", ("'train.steps' is not a setting; write key=value",)),
        ("=5", ("is not a setting",)),
    ],
)
def test_errors_name_the_key(override: str, parts: tuple[str, ...]) -> None:
    message = error(override)
    for part in parts:
        assert part in message


def test_sources_that_are_none(tmp_path: Path) -> None:
    assert "did you mean scenes?" in error(source="scene")
    assert "none.yaml cannot be read" in error(source=tmp_path / "none.yaml")
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml cannot be read" in error(source=tmp_path / "folder.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "binary.yaml" in error(source=tmp_path / "binary.yaml")
    (tmp_path / "odd.yaml").write_text("1: 2\n")
    assert "line 1: the key 1 is not a name" in error(source=tmp_path / "odd.yaml")
    (tmp_path / "none.yaml").write_text("trian:\n")
    assert error(source=tmp_path / "none.yaml").startswith("unknown key trian")


def test_a_section_without_a_key_sets_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: scenes\ntrain:\n  # steps: 5\ndata:\n")
    assert load_config(tmp_path / "mine.yaml") == load_config("scenes")
    assert load_config(tmp_path / "mine.yaml", ["train.steps=5"]).train.steps == 5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("root=x", "unknown key root (did you mean data.root?)"),
        ("data.scale=1e-12", "data.scale: should be greater than or equal to 0.01"),
        ("network.dropout=1", "network.dropout: should be less than 1"),
        ("train.crop_size=99999999999999999999", "train.crop_size: should be less than or equal to 65536"),
        ("data.root=" + "a" * 5000, "data.root: should be a path that can exist (this one is too long"),
        ("data.root=''", "data.root: should be a path that can exist (this one is empty)"),
        ("seed=" + "9" * 5000, "seed: should be a smaller number"),
        ("data.classes=" + "a," * 300, "data.classes: should have at most 255 items"),
    ],
)
def test_values_that_cannot_be_meant(override: str, words: str) -> None:
    told = error(override)
    assert told.startswith(words)
    assert len(told) < 300
