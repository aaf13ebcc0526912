"""Another data set, network or part is named: what the preset or base said of the former one says nothing anymore."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from u2pl.build import build_method, build_network, build_source
from u2pl.config.overrides import load_config, load_saved
from u2pl.config.part import build_choice
from u2pl.config.parts import MIXINGS, SUPERVISED_LOSSES
from u2pl.config.schema import Config
from u2pl.errors import InputError
from u2pl.pixels.losses import CrossEntropy, OhemCrossEntropy

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(mine="...", other="...")``: files of YAML; returns the first."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return tmp_path / f"{next(iter(files))}.yaml"

    return write


LOADING = {"cache": True, "workers": 1, "timeout": 300}


def told(section: Any) -> dict[str, Any]:
    """What a section says beyond "let the part choose"."""
    return {key: value for key, value in section.model_dump().items() if value is not None}


def refused(config: Config) -> str:
    """Why the parts of a configuration cannot be built."""

    def build() -> None:
        source = build_source(config.data, seed=0)
        network = build_network(config, len(source.classes))
        build_method(config.method, network, num_classes=len(source.classes), embedding_dim=4)

    with pytest.raises(InputError) as caught:
        build()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_data_set_by_an_override() -> None:
    weak = told(load_config("weak", ["data.name=pascal_voc", "data.root=X"]).data)
    assert weak == {"name": "pascal_voc", "root": "X", "labeled": 0, "tags": "masks", **LOADING}
    folder = told(load_config("scenes", ["data.name=folder"]).data)
    assert folder == {"name": "folder", "labeled": 6, **LOADING}
    assert refused(load_config("scenes", ["data.name=folder"])).startswith("data.root: is needed for data.name=folder")
    drawn = load_config("camvid", ["data.name=scenes", "data.val=5"])
    assert told(drawn.data) == {"name": "scenes", "labeled": 46, "val": 5, **LOADING}
    assert len(build_source(drawn.data, seed=0).labeled) == 46


def test_another_domain_by_an_override() -> None:
    config = load_config("domain", ["data.source.name=folder", "data.source.root=X"])
    assert config.data.source is not None
    assert config.data.target is not None
    assert told(config.data.source) == {"name": "folder", "root": "X"}
    assert config.data.target == load_config("domain").data.target
    voc = load_config("gta5_cityscapes", ["data.source.name=folder", "data.source.root=X"]).data.source
    assert voc is not None
    assert told(voc) == {"name": "folder", "root": "X", "scale": 0.67}  # which a folder has, too


def test_one_data_set_in_place_of_two_and_the_other_way_around() -> None:
    one = load_config("domain", ["data.name=folder", "data.root=X"]).data
    assert told(one) == {"name": "folder", "root": "X", **LOADING}
    two = load_config("scenes", ["data.name=domain", "data.source.root=X", "data.target.root=Y"]).data
    assert {"name", "source", "target", "cache", "workers", "timeout"} == set(told(two))


def test_another_network_by_an_override() -> None:
    config = load_config("camvid", ["network.name=deeplabv3plus"])
    assert config.network.architecture is None
    assert (config.network.encoder, config.network.embedding_dim) == ("resnet18", 128)
    other = load_config("scenes", ["network.name=smp", "network.architecture=FPN", "network.output_stride=null"])
    assert other.network.low_level_channels is None
    assert (other.network.embedding_dim, other.network.architecture) == (64, "FPN")
    assert build_network(other, 3) is not None


@pytest.mark.parametrize("override", ["method.supervised_loss.name=cross_entropy", "method={supervised_loss: {}}"])
def test_another_loss_by_an_override(override: str, write: Write) -> None:
    base = write(base="base: cityscapes\nmethod: {supervised_loss: {threshold: 0.5, min_kept: 7}}\n")
    assert build_choice(load_config(base).method.supervised_loss, SUPERVISED_LOSSES, "") == OhemCrossEntropy(0.5, 7)
    section = load_config(base, [override]).method.supervised_loss
    assert told(section) == {"name": "cross_entropy"}
    assert build_choice(section, SUPERVISED_LOSSES, "") == CrossEntropy()
    same = load_config(base, ["method.supervised_loss.name=ohem"]).method.supervised_loss
    assert told(same) == {"name": "ohem", "threshold": 0.5, "min_kept": 7}


def test_keys_that_both_parts_have_stay(write: Write) -> None:
    base = write(base="method: {mixing: {name: ael, area: 0.3, smoothing: 2}}\n")
    assert told(load_config(base, ["method.mixing.name=cutmix"]).method.mixing) == {"name": "cutmix", "area": 0.3}
    assert told(load_config(base, ["method.mixing.name=classmix"]).method.mixing) == {"name": "classmix"}


def test_a_file_that_names_another_part_than_its_base(write: Write) -> None:
    data = load_config(write(mine="base: weak\ndata: {name: folder, root: X, labeled: 0.5}\n")).data
    assert told(data) == {"name": "folder", "root": "X", "labeled": 0.5, "tags": "masks", **LOADING}
    source = load_config(write(mine="base: domain\ndata: {source: {name: folder, root: X}}\n")).data.source
    assert source is not None
    assert told(source) == {"name": "folder", "root": "X"}
    plain = load_config(write(mine="base: domain\ndata: {name: folder, root: X}\n")).data
    assert (plain.source, plain.target) == (None, None)
    network = load_config(write(mine="base: camvid\nnetwork: {name: deeplabv3plus, channels: 8}\n")).network
    assert (network.architecture, network.channels, network.embedding_dim) == (None, 8, 128)


def test_a_base_of_a_base_that_names_another_part(write: Write) -> None:
    mine = write(
        mine="base: middle.yaml\nmethod: {supervised_loss: {name: balanced}}\n",
        middle="base: cityscapes\nmethod: {supervised_loss: {threshold: 0.5}}\n",
    )
    assert told(load_config(mine).method.supervised_loss) == {"name": "balanced"}


@pytest.mark.parametrize(
    ("source", "overrides", "key", "name"),
    [
        ("scenes", ("data.train=5", "data.name=folder", "data.root=X"), "data.train", "data.name=folder"),
        ("weak", ("data.name=cityscapes", "data.root=X", "data.tags=masks"), "data.tags", "data.name=cityscapes"),
        ("domain", ("data.name=folder", "data.root=X", "data.source.root=Y"), "data.source", "data.name=folder"),
        (
            "domain",
            ("data.source.name=folder", "data.source.root=X", "data.source.train=5"),
            "data.source.train",
            "data.source.name=folder",
        ),
        ("scenes", ("network.name=smp", "network.deep_stem=true"), "network.deep_stem", "network.name=smp"),
        (
            "scenes",
            ("method.mixing.name=cutmix", "method.mixing.smoothing=1"),
            "method.mixing.smoothing",
            "method.mixing.name=cutmix",
        ),
        (
            "cityscapes",
            (
                "method.supervised_loss.threshold=0.5",
                "method.supervised_loss.name=cross_entropy",
                *("data.name=scenes", "network.pretrained=false", "network.encoder=resnet18"),
            ),
            "method.supervised_loss.threshold",
            "method.supervised_loss.name=cross_entropy",
        ),
    ],
)
def test_a_key_that_is_set_for_the_wrong_part_is_told_in_any_order(
    source: str, overrides: tuple[str, ...], key: str, name: str
) -> None:
    found = (
        {refused(load_config(source, order)) for order in itertools.permutations(overrides[:3])}
        if (len(overrides) <= 3)
        else {refused(load_config(source, order)) for order in (overrides, overrides[::-1])}
    )
    (message,) = found
    assert message.startswith(f"{key}: ")
    assert name in message
    assert message.endswith("; leave it out")


def test_a_key_that_a_file_sets_for_the_wrong_part_is_told(write: Write) -> None:
    mine = write(mine="base: scenes\ndata: {name: folder, root: X, train: 5}\n")
    assert refused(load_config(mine)).startswith("data.train: ")
    mine = write(mine="data: {name: scenes, val: 2, train: 4}\nmethod: {weighting: {threshold: 0.9}}\n")
    assert refused(load_config(mine)).startswith("method.weighting.threshold: ")


def test_the_order_of_overrides_does_not_matter_to_a_part() -> None:
    overrides = ("data.root=X", "data.name=folder", "data.val=val", "method.mixing.area=0.2", "method.mixing.name=ael")
    configs = [load_config("weak", order) for order in itertools.permutations(overrides)]
    assert all(config == configs[0] for config in configs)
    assert (configs[0].data.root, configs[0].data.train, configs[0].method.mixing.area) == ("X", None, 0.2)


def test_the_last_of_several_names_counts() -> None:
    config = load_config("scenes", ["data.name=folder", "data.name=scenes"])
    assert config.data.name == "scenes"
    assert load_config("scenes", ["method.name=mean_teacher", "method.name=fixmatch"]).method.name == "fixmatch"


def test_a_name_that_there_is_not_drops_nothing_and_is_told() -> None:
    for source, override, words in (
        ("weak", "data.name=pascal", "data.name: should be 'scenes', "),
        ("domain", "data.source.name=gta", "data.source.name: should be 'scenes', "),
        ("camvid", "network.name=smpp", "network.name: should be 'deeplabv3plus' or 'smp', not 'smpp'"),
        ("camvid", "method.mixing.name=cutmx", "method.mixing.name: should be 'cutmix', "),
        ("camvid", "method.mixing.name=[ael]", "method.mixing.name: should be 'cutmix', "),
        ("camvid", "data.name={a: 1}", "data.name: should be 'scenes', "),
        ("camvid", "data.name=null", "data.name: should be 'scenes', "),
    ):
        with pytest.raises(InputError) as caught:
            load_config(source, [override])
        assert str(caught.value).startswith(words)


def test_a_file_with_a_name_that_is_none_is_told(write: Write) -> None:
    for text in ("base: camvid\ndata: {name: [folder]}\n", "base: camvid\nnetwork: {name: {smp: 1}}\n"):
        with pytest.raises(InputError, match=r"^(data|network)\.name: should be "):
            load_config(write(mine=text))


def test_parts_that_are_chosen_by_auto_keep_their_keys(write: Write) -> None:
    base = write(base="base: folder\nmethod: {mixing: {area: 0.3}}\n")
    section = load_config(base, ["method.mixing.name=cutmix"]).method.mixing
    assert build_choice(section, MIXINGS, "method.mixing").area == 0.3


def test_a_run_is_told_of_another_data_set(tmp_path: Path) -> None:
    """As `evaluate` does: the saved configuration holds every key."""
    path = tmp_path / "config.yaml"
    path.write_text(load_config("domain").to_yaml())
    data = load_saved(path, ["data.name=folder", "data.root=X"]).data
    assert told(data) == {"name": "folder", "root": "X", **LOADING}
    path.write_text(load_config("weak").to_yaml())
    assert load_saved(path, ["data.name=folder", "data.root=X"]).data.train is None
