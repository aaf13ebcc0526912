"""Sections within the data section, and what they become."""

from __future__ import annotations

from pathlib import Path

import pytest

from u2pl.build import build_batches, build_class_share, build_diagnosis, build_rare_classes, build_source
from u2pl.config.overrides import load_config
from u2pl.config.schema import Config
from u2pl.data.batches import Batches
from u2pl.data.rare_classes import RareClassesOfDomains, RareClassSampling, pixel_counts
from u2pl.errors import InputError

SMALL = (
    *("data.source.train=5", "data.target.train=4", "data.target.val=3", "data.cache=false", "data.workers=0"),
    *("data.source.height=48", "data.target.height=48", "train.crop_size=32", "train.batch_size=2"),
)


def test_overrides_reach_into_sections() -> None:
    overrides = ("data.name=domain", "data.source.root=a", "data.target.root=2012", "data.target.classes=sky,car")
    data = load_config(None, [*overrides, "data.target.val=2013", "data.source.labeled=0.5"]).data
    assert data.source is not None
    assert data.target is not None
    assert (data.source.name, data.source.root, data.source.labeled) == ("folder", "a", 0.5)
    assert (data.target.root, data.target.val, data.target.classes) == ("2012", 2013, ["sky", "car"])
    again = Config.model_validate(load_config(None, overrides).model_dump())
    assert again == load_config(None, overrides)


def test_a_saved_configuration_can_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(load_config("scenes").to_yaml())  # holds `source: null`
    source = load_config(path, ["data.source.root=x"]).data.source
    assert source is not None
    assert source.root == "x"
    with pytest.raises(InputError, match=r"data\.source\.root\.x: root is a value, not a section"):
        load_config(None, ["data.source.root=x", "data.source.root.x=3"])


def test_a_base_keeps_what_a_section_does_not_set(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: domain\ndata: {target: {domain: fog}}\n")
    base, mine = load_config("domain").data, load_config(path).data
    assert base.target is not None
    assert mine.target == base.target.model_copy(update={"domain": "fog"})
    assert mine.source == base.source


def test_the_preset_goes_from_day_to_night() -> None:
    source = build_source(load_config("domain").data, seed=0)
    assert (len(source.labeled), len(source.unlabeled), len(source.val)) == (200, 400, 80)
    assert {sample.name.split("_")[0] for sample in source.labeled} == {"source/train"}
    assert {sample.name.split("_")[0] for sample in (*source.unlabeled, *source.val)} == {"target/night"}
    bound = build_source(load_config("domain", ["data.upper_bound=true"]).data, seed=0)
    assert [sample.name for sample in bound.labeled] == [sample.name for sample in source.unlabeled]
    fog = build_source(load_config("domain", ["data.target.domain=fog"]).data, seed=0)
    assert fog.val[0].name.startswith("target/fog")


@pytest.mark.parametrize("cache", ["true", "false"])
def test_batches_have_labels_of_one_domain_and_images_of_the_other(cache: str) -> None:
    config = load_config("domain", [*SMALL, "train.steps=3", f"data.cache={cache}"])
    source = build_source(config.data, seed=0)
    batches = list(build_batches(config, source, semi_supervised=True, rank=0, world_size=1)(0))
    day, night = (sum(float(getattr(b, name).float().mean()) for b in batches) for name in ("image", "unlabeled"))
    assert night < 0.7 * day
    assert all(batch.truth is None for batch in batches)


def test_scale_is_that_of_what_is_validated_on() -> None:
    overrides = ("data.source.name=gta5", "data.source.scale=0.6", "data.target.name=cityscapes")
    assert load_config(None, ["data.name=domain", *overrides, "data.target.scale=0.5"]).data.val_scale == 0.5
    assert load_config(None, ["data.name=domain", *overrides]).data.val_scale == 1.0
    assert load_config("camvid").data.val_scale == 0.5
    assert load_config("folder").data.val_scale == 1.0


def test_rare_classes_are_drawn_where_they_are_asked_for() -> None:
    config = load_config(
        "domain", [*SMALL, "data.rare_class_sampling=true", "data.rare_class_sampling.temperature=0.2"]
    )
    source = build_source(config.data, seed=0)
    sampling = build_rare_classes(config.data, source)
    assert sampling is not None
    expected = RareClassSampling(pixel_counts(source.labeled), temperature=0.2)
    assert sampling.probability.tolist() == expected.probability.tolist()
    assert build_rare_classes(load_config("domain", SMALL).data, source) is None


def test_a_few_labels_of_the_target_join_those_of_the_source() -> None:
    plain = build_source(load_config("domain").data, seed=0)
    for labeled, count in (("20", 20), ("0.05", 20), ("1", 1), ("0", 0), ("null", 0)):
        source = build_source(load_config("domain", [f"data.target.labeled={labeled}"]).data, seed=0)
        assert (len(source.labeled), len(source.unlabeled), len(source.val)) == (200 + count, 400 - count, 80)
        assert source.target_labeled == count
        target = [sample.name for sample in plain.unlabeled]
        assert [sample.name for sample in (*source.labeled[200:], *source.unlabeled)] == target
        assert [sample.name for sample in source.labeled[:200]] == [sample.name for sample in plain.labeled]


@pytest.mark.parametrize("sampling", ["false", "true"])
def test_half_of_a_labeled_batch_is_of_the_target(monkeypatch: pytest.MonkeyPatch, sampling: str) -> None:
    """One mask of the target beside five of the source, in training and in a diagnosis."""
    overrides = ["data.target.labeled=1", "train.batch_size=4", "train.steps=6", f"data.rare_class_sampling={sampling}"]
    config = load_config("domain", [*SMALL, *overrides])
    source = build_source(config.data, seed=0)
    given: list[Batches] = []
    monkeypatch.setattr("u2pl.build.data.loader", lambda batches, **options: given.append(batches))
    build_batches(config, source, semi_supervised=True, rank=0, world_size=1)(0)
    build_diagnosis(config, source, semi_supervised=True, rank=0, world_size=1).batches()
    assert len(given) == 2
    for batches in given:
        for step in range(4):
            labeled, unlabeled = batches.indices(step)
            assert sum(source.labeled[index].name.startswith("target/") for index in labeled) == 2
            assert len(unlabeled) == 4
            assert all(source.unlabeled[index] is not source.labeled[-1] for index in unlabeled)


def test_rare_classes_of_both_domains_are_drawn_alike() -> None:
    config = load_config("domain", [*SMALL, "data.target.labeled=2", "data.rare_class_sampling=true"])
    source = build_source(config.data, seed=0)
    sampling = build_rare_classes(config.data, source)
    assert isinstance(sampling, RareClassesOfDomains)
    assert sampling.images == 5
    for found, samples in ((sampling.source, source.labeled[:5]), (sampling.target, source.labeled[5:])):
        assert found.probability.tolist() == RareClassSampling(pixel_counts(samples)).probability.tolist()


def test_the_share_of_a_class_is_that_of_the_draws() -> None:
    losses = ("method.supervised_loss.name=balanced", "method.unsupervised_loss.name=balanced")
    config = load_config("domain", [*SMALL, *losses, "data.target.labeled=2"])
    source = build_source(config.data, seed=0)
    share = build_class_share(config.method, source)
    assert share is not None
    means = [
        pixel_counts(part)[:, : len(source.classes)].mean(axis=0) for part in (source.labeled[:5], source.labeled[5:])
    ]
    expected = (means[0] + means[1]) / (means[0] + means[1]).sum()
    assert share.tolist() == pytest.approx(expected.tolist())
    pooled = pixel_counts(source.labeled)[:, : len(source.classes)].sum(axis=0)
    assert share.tolist() != pytest.approx((pooled / pooled.sum()).tolist(), rel=1e-3)


def test_reading_many_masks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("u2pl.build.data._MANY", 5)
    config = load_config("domain", [*SMALL, "data.source.train=20", "data.rare_class_sampling=true"])
    said: list[str] = []
    build_rare_classes(config.data, build_source(config.data, seed=0), say=said.append)
    assert said[0] == "rare_class_sampling: 2 of 20 masks read"
    assert len(said) == 10
    monkeypatch.setattr("u2pl.build.data._MANY", 21)
    build_rare_classes(config.data, build_source(config.data, seed=0), say=said.append)
    assert len(said) == 10


def test_domains_of_real_images(real_data: Path) -> None:
    """CamVid's classes as IDD-Lite's, by the mapping that lies with the latter."""
    roots = (f"data.source.root={real_data / 'camvid'}", f"data.target.root={real_data / 'idd_lite'}")
    keys = ("data.name=domain", "data.source.val=val", "data.target.val=val", "data.source.mapping=from_camvid.csv")
    source = build_source(load_config(None, [*roots, *keys]).data, seed=0)
    assert (len(source.labeled), len(source.unlabeled), len(source.val)) == (367, 1403, 102)
    assert len(source.classes) == 7
    assert {int(value) for sample in source.labeled[:5] for value in sample.mask().unique()} <= {*range(7), 255}
