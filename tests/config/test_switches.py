"""Parts that can be left out: a switch turns them on or off, and so does a key of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from u2pl.config.overrides import load_config
from u2pl.config.parts import PrototypesSection, RareClassSection
from u2pl.config.schema import Config, all_keys, section_in
from u2pl.errors import InputError

KEYS = dict(all_keys())
OPTIONAL = [key for key, field in KEYS.items() if section_in(field.annotation) is not None]
#: Sections that are always there.
ALWAYS = [
    *("data", "network", "method", "train", "evaluation", "method.reliability", "method.schedule", "method.teacher"),
    *("method.strong_views", "method.mixing", "method.supervised_loss", "method.unsupervised_loss", "method.weighting"),
    *("method.negative_keys", "method.loss_weights", "method.image_prior", "method.cam", "method.cam.refinement"),
]


def error(*overrides: str, source: str | Path | None = "scenes") -> str:
    with pytest.raises(InputError) as caught:
        load_config(source, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def value(key: str, *overrides: str, source: str | Path | None = "scenes") -> Any:
    return load_config(source, overrides).value(key)


def test_the_parts_that_can_be_left_out() -> None:
    assert set(OPTIONAL) == {
        *("data.source", "data.target", "data.rare_class_sampling", "method.contrast", "method.alignment"),
        *("method.prototypes", "method.denoising", "method.masked_consistency"),
    }
    sections = {name.rpartition(".")[0] for name in KEYS} - {""}
    assert sections == {*ALWAYS, *OPTIONAL} - {"data.source", "data.target"}


@pytest.mark.parametrize("key", OPTIONAL)
def test_a_switch_turns_a_part_on_or_off(key: str, tmp_path: Path) -> None:
    default = section_in(KEYS[key].annotation)
    assert default is not None
    for on in ("true", "yes", "{}"):
        assert value(key, f"{key}={on}", source=None) == default()
    for off in ("false", "no", "null", "~"):
        assert value(key, f"{key}={off}", source=None) is None
    assert value(key, f"{key}=false", f"{key}=true", source=None) == default()
    assert value(key, f"{key}=true", f"{key}=false", source=None) is None
    section, name = key.split(".")
    path = tmp_path / "mine.yaml"
    for text, there in (("true", True), ("false", False), ("null", False), ("{}", True)):
        path.write_text(f"{section}: {{{name}: {text}}}\n")
        found = value(key, source=path)
        assert (found == default()) if there else (found is None)
        path.write_text(load_config(path).to_yaml())  # saved with a run, and read again
        assert value(key, source=path) == found


def test_a_contrast_that_is_left_out() -> None:
    config = load_config("scenes", ["method.contrast=false"])
    assert config.method.contrast is None
    assert not config.method.trains_embeddings
    assert config.value("method.contrast.temperature") is None
    assert config.with_values({"method.contrast.temperature": 0.2}) == config
    assert value("method.contrast.bank_size") == 2000


def test_a_key_of_a_part_turns_it_on() -> None:
    assert value("method.contrast.temperature", "method.contrast=false", "method.contrast.temperature=0.2") == 0.2
    assert value("method.contrast", "method.contrast.temperature=0.2", "method.contrast=false") is None  # the last
    assert value("method.prototypes", "method.prototypes=true") == PrototypesSection()
    assert value("method.prototypes", "method.prototypes.momentum=0.5") == PrototypesSection(momentum=0.5)
    assert value("method.denoising.temperature", "method.denoising=true", "method.denoising.temperature=0.5") == 0.5
    assert value("data.rare_class_sampling", "data.rare_class_sampling=true") == RareClassSection()
    warm = "data.rare_class_sampling.temperature=0.5"
    assert value("data.rare_class_sampling", warm) == RareClassSection(temperature=0.5)
    assert value("data.rare_class_sampling", warm, source="gta5_cityscapes_mit") == RareClassSection(temperature=0.5)
    assert value("data.source.name", "data.source.root=X") == "folder"


def test_a_key_of_a_part_that_is_there_leaves_its_other_keys() -> None:
    assert value("method.contrast.bank_size", "method.contrast.temperature=0.2") == 2000
    assert value("method.contrast.bank_size", "method.contrast={temperature: 0.2}") == 30_000  # the section, whole


def test_switches_and_keys_of_a_file_and_its_base(tmp_path: Path) -> None:
    (tmp_path / "off.yaml").write_text("base: scenes\nmethod: {contrast: false, prototypes: {momentum: 0.5}}\n")
    (tmp_path / "on.yaml").write_text("base: off.yaml\nmethod: {contrast: {temperature: 0.2}, prototypes: false}\n")
    assert value("method.contrast", source=tmp_path / "off.yaml") is None
    assert value("method.contrast.temperature", source=tmp_path / "on.yaml") == 0.2
    assert value("method.prototypes", source=tmp_path / "on.yaml") is None
    assert value("method.contrast.temperature", "method.contrast.anchors=3", source=tmp_path / "off.yaml") == 0.5


@pytest.mark.parametrize("key", ALWAYS)
def test_a_part_that_is_always_there_is_no_switch(key: str) -> None:
    for switch in ("true", "false"):
        message = error(f"{key}={switch}", source=None)
        assert message.startswith(f"{key}: should be ") or message.startswith(f"{key} is now {key}.")
        assert "dictionary" not in message


@pytest.mark.parametrize("key", [*OPTIONAL, "method.reliability", "method.supervised_loss", "method.strong_views"])
@pytest.mark.parametrize("text", ["3", "0.5", "1", "0", "maybe", "[1]"])
def test_another_value_is_no_part(key: str, text: str) -> None:
    message = error(f"{key}={text}")
    assert message.startswith(f"{key}: should be ")


def test_what_is_no_part_is_told_without_words_of_the_library() -> None:
    """A person knows of keys, and neither of dictionaries nor of classes."""
    messages = [error(f"{key}=3") for key in (*OPTIONAL, "method.reliability", "method.supervised_loss")]
    assert not [message for message in messages if "dictionary" in message or "instance of" in message]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.contrast.temprature=1", "unknown key method.contrast.temprature (did you mean temperature?)"),
        ("method.contrast={temprature: 1}", "unknown key method.contrast.temprature (did you mean temperature?)"),
        ("method.alignment.momentun=1", "unknown key method.alignment.momentun (did you mean momentum?)"),
        ("method.contrst.temperature=1", "unknown key method.contrst (did you mean contrast?)"),
        ("method.cam.refinement.iteration=1", "unknown key method.cam.refinement.iteration (did you mean iterations?)"),
        (
            "data.rare_class_sampling.minshare=1",
            "unknown key data.rare_class_sampling.minshare (did you mean min_share",
        ),
        ("data.source.rot=x", "unknown key data.source.rot (did you mean root?)"),
        ("method.mixing.smoothin=1", "unknown key method.mixing.smoothin (did you mean smoothing?)"),
        ("method.prototypes.zzz=1", "unknown key method.prototypes.zzz (known: momentum)"),
        ("method.contrast.temperature=0", "method.contrast.temperature: should be greater than or equal to 0.001"),
        ("method.contrast.temperature=hot", "method.contrast.temperature: should be a valid number"),
        ("method.contrast.anchors=true", "method.contrast.anchors: should be a"),
        ("method.contrast.anchors=null", "method.contrast.anchors: should be a valid integer"),
        ("method.contrast.anchors.x=1", "method.contrast.anchors: should be a valid integer"),
        ("method.prototypes.momentum=1.5", "method.prototypes.momentum: should be less than or equal to 1, not 1.5"),
    ],
)
@pytest.mark.parametrize("source", ["scenes", None])
def test_mistakes_within_a_part_name_the_key(override: str, words: str, source: str | None) -> None:
    assert error(override, source=source).startswith(words)


def test_mistakes_within_a_part_that_was_off() -> None:
    off = ("method.contrast=false", "method.contrast.temprature=1")
    assert error(*off) == "unknown key method.contrast.temprature (did you mean temperature?)"


def test_defaults_of_the_switches() -> None:
    config = Config()
    assert [key for key in OPTIONAL if config.value(key) is not None] == ["method.contrast"]


def test_turning_a_part_on_that_is_on_changes_nothing(tmp_path: Path) -> None:
    assert load_config("scenes", ["method.contrast=true"]) == load_config("scenes")
    file = tmp_path / "mine.yaml"
    file.write_text("base: scenes\nmethod: {contrast: true}\n")
    assert load_config(file).method.contrast.bank_size == load_config("scenes").method.contrast.bank_size == 2000


def test_an_empty_section_sets_nothing(tmp_path: Path) -> None:
    """Such as one whose lines are all comments; of a part that may be left out, nothing means off."""
    file = tmp_path / "mine.yaml"
    file.write_text("method:\n  reliability:\n    # alpha: 0.3\n  contrast:\n")
    config = load_config(file)
    assert config.method.reliability.alpha == 0.2
    assert config.method.contrast is None


def test_another_network_may_have_another_architecture() -> None:
    """The stride of the paper's network is no choice of FPN."""
    config = load_config("scenes", ["network.name=smp", "network.architecture=FPN"])
    assert (config.network.output_stride, config.network.low_level_channels) == (None, None)
    assert config.network.embedding_dim == 64
