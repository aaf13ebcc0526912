"""The weakly supervised setting from its configuration: parts, batches, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from u2pl.build import (
    build_batches,
    build_method,
    build_negative_keys,
    build_network,
    build_seeding,
    build_source,
)
from u2pl.build.trained import network_of
from u2pl.commands.checks import check_source
from u2pl.commands.run_folder import network_description
from u2pl.config.overrides import load_config
from u2pl.config.schema import Config
from u2pl.errors import InputError
from u2pl.methods import U2PL, WeakU2PL
from u2pl.methods.seeding import Seeding
from u2pl.pixels.cam import PixelAdaptiveRefinement
from u2pl.pixels.views import views_of

TINY = (
    *("data.name=scenes", "data.kind=objects", "data.labeled=0", "data.tags=masks", "data.train=6", "data.val=2"),
    *("data.height=32", "data.width=32", "data.workers=0", "network.channels=8", "network.low_level_channels=4"),
    *(
        "network.embedding_dim=6",
        "method.name=weak_u2pl",
        "method.contrast.bank_size=50",
        "method.contrast.keys_per_step=10",
    ),
    *("train.batch_size=2", "train.crop_size=32", "train.steps=4"),
)


def config(*overrides: str) -> Config:
    return load_config(None, [*TINY, *overrides])


def method_of(settings: Config, classes: int = 7) -> Any:
    network = build_network(settings, classes)
    return build_method(settings.method, network, num_classes=classes, embedding_dim=settings.network.embedding_dim)


def test_the_parts_of_a_run() -> None:
    settings = config("method.schedule.warmup=0.1", "method.cam.warmup=0.4", "method.negative_keys.tags=false")
    assert settings.method.trains_embeddings
    assert settings.method.uses_negative_keys
    assert settings.method.kind.uses_tags
    method = method_of(settings)
    assert isinstance(method, WeakU2PL)
    assert method.u2pl.contrast is not None
    assert (method.seeding.warmup, method.u2pl.schedule.warmup) == (0.4, 0.4)
    assert not method.u2pl.negative_keys.tags
    assert method.u2pl.contrast.negative_keys == build_negative_keys(settings.method, 7)
    assert method_of(config("method.contrast=false")).u2pl.contrast is None


def test_every_key_of_the_seeds_arrives() -> None:
    keys = ("warmup=0.1", "scales=[1.0,2.0]", "flip=false", "stride=2", "high=0.7", "low=0.2", "share=0.4")
    more = ("refinement.iterations=3", "refinement.dilations=[1,5]")
    settings = config(*(f"method.cam.{key}" for key in (*keys, *more)))
    expected = Seeding(0.1, [1.0, 2.0], False, 2, PixelAdaptiveRefinement(3, [1, 5]), 0.7, 0.2, 0.4)
    assert build_seeding(settings.method) == expected
    assert method_of(settings).seeding == expected


def test_the_head_is_built_where_the_method_needs_it_alone() -> None:
    weak, plain = config(), config("method.name=u2pl", "data.labeled=2")
    assert "classification.weight" in build_network(weak, 7).state_dict()
    torch.manual_seed(0)
    network = build_network(plain, 7)
    assert "classification.weight" not in network.state_dict()
    assert type(build_method(plain.method, network, num_classes=7, embedding_dim=6)) is U2PL
    source = build_source(weak.data, seed=0)
    again = network_of(network_description(weak, source))
    assert again.state_dict().keys() == build_network(weak, 7).state_dict().keys()


def test_batches_have_tags_for_this_method_alone() -> None:
    settings = config()
    source = build_source(settings.data, seed=0)
    options = {"semi_supervised": True, "rank": 0, "world_size": 1}
    batch = next(iter(build_batches(settings, source, **options)(0)))
    assert (len(batch.image), len(batch.unlabeled)) == (0, 2)
    assert batch.tags.shape == (2, 7)
    assert batch.tagged.all()
    labeled = config("method.name=u2pl", "data.labeled=2")
    batch = next(iter(build_batches(labeled, build_source(labeled.data, seed=0), **options)(0)))
    assert batch.tags is batch.tagged is None
    assert len(batch.image) == 2


def test_a_step_of_the_built_method() -> None:
    settings = config("method.cam.warmup=0.2", "method.schedule.warmup=0.5")
    method, source = method_of(settings), build_source(settings.data, seed=0)
    student = build_network(settings, 7)
    batches = build_batches(settings, source, semi_supervised=True, rank=0, world_size=1)(0)
    names = {"supervised", "classification", "contrastive"}
    for batch, progress, more in zip(batches, (0.0, 0.2, 0.9), ((), (), ("unsupervised",)), strict=False):
        losses = method(student, views_of(batch), progress)
        assert set(losses) == names | set(more)
        assert all(loss.isfinite() for loss in losses.values())
        method.after_step(student)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("method.cam.low=0.6",), "method.cam.low: 0.6 is above high, 0.55"),
        (("method.mixing.name=ael",), "method.mixing.name: ael pastes labels"),
        (("method.mixing.name=cross_domain",), "method.mixing.name: cross_domain pastes labels"),
    ],
)
def test_what_does_not_fit_together(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        method_of(config(*overrides))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("data.tags=null", "data.labeled=2"), "no unlabeled image has a tag; set data.tags"),
        (("method.name=u2pl",), "there is no labeled image"),
        (("method.name=supervised",), "there is no labeled image"),
        (("data.labeled=6",), "no image to learn from by its tags; set data.labeled=0"),
    ],
)
def test_data_that_a_method_cannot_learn_from(overrides: tuple[str, ...], words: str) -> None:
    settings = config(*overrides)
    with pytest.raises(InputError, match=words):
        check_source(build_source(settings.data, seed=0), settings)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.cam.high=1.5", "method.cam.high: should be less than or equal to 1"),
        ("method.cam.scales=[]", "method.cam.scales"),
        ("method.cam.refinement.dilations=[0]", "method.cam.refinement.dilations"),
        ("method.cam.hihg=0.5", r"unknown key method.cam.hihg \(did you mean high"),
    ],
)
def test_nonsense_is_told_by_its_key(override: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        config(override)


@pytest.mark.parametrize("source", ["weak", str(Path(__file__).parents[2] / "examples" / "voc_weak.yaml")])
def test_preset_and_example_learn_from_tags_alone(source: str) -> None:
    settings = load_config(source)
    assert (settings.method.name, settings.data.labeled) == ("weak_u2pl", 0)
    assert settings.data.tags is not None
    assert settings.method.cam.warmup < settings.method.schedule.warmup < 1
    assert method_of(settings).seeding == build_seeding(settings.method)


def test_tags_belong_to_some_readers(tmp_path: Path) -> None:
    settings = load_config(None, ["data.name=cityscapes", f"data.root={tmp_path}", "data.tags=masks"])
    with pytest.raises(InputError, match=r"data\.tags: is not used with data\.name=cityscapes"):
        build_source(settings.data, seed=0)


def test_labels_and_tags_in_one_run() -> None:
    settings = config("data.labeled=2")
    source = build_source(settings.data, seed=0)
    check_source(source, settings)
    batch = next(iter(build_batches(settings, source, semi_supervised=True, rank=0, world_size=1)(0)))
    assert (len(batch.image), len(batch.unlabeled)) == (2, 2)
    student = build_network(settings, 7)
    losses = method_of(settings)(student, views_of(batch), 0.1)
    assert losses["supervised"] > 0  # labels train from the start
    assert losses["classification"] > 0
