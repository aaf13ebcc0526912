"""Domain adaptation as it is configured: the method's keys, the presets of the field, and what they build."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from u2pl.build import build_batches, build_method, build_source
from u2pl.build.method import build_strong_views
from u2pl.config.overrides import load_config
from u2pl.config.preset_files import preset_names
from u2pl.config.schema import Config
from u2pl.data.photometric import Photometric
from u2pl.methods import U2PL, ConfidentShare, FixMatch, MeanTeacher, StrongViews, Supervised
from u2pl.pixels import CrossDomainClassMix, Reliability
from u2pl.pixels.losses import SymmetricCrossEntropy

SCENES = ("domain", "domain_plus", "domain_dacs")
CITYSCAPES = ("gta5_cityscapes", "synthia_cityscapes", "gta5_cityscapes_mit", "synthia_cityscapes_mit")
SMALL = tuple(
    f"data.{part}.{key}={value}"
    for part in ("source", "target")
    for key, value in {"train": 4, "val": 1, "height": 48, "width": 64}.items()
)


def built(config: Config, network: nn.Module | None = None) -> Any:
    return build_method(config.method, network or nn.Linear(2, 3), num_classes=6, embedding_dim=3)


def views_of(*overrides: str) -> StrongViews:
    return build_strong_views(load_config("scenes", overrides).method, 4)


@pytest.mark.parametrize("name", [*SCENES, *CITYSCAPES])
def test_presets_paste_across_domains_and_jitter_afterwards(name: str) -> None:
    assert name in preset_names()
    config = load_config(name)
    assert config.data.name == "domain"
    method = built(config)
    assert method.mix.mixing == CrossDomainClassMix(6)
    assert isinstance(method.mix.jitter, Photometric)
    assert type(method) is (MeanTeacher if name == "domain_dacs" else U2PL)
    assert isinstance(built(load_config(name, ["method.name=supervised"])), Supervised)  # source only


def test_dacs_uses_all_pixels_by_the_share_that_is_confident() -> None:
    method = built(load_config("domain_dacs"))
    assert method.weighting == ConfidentShare(0.968)
    assert method.reliability == Reliability(0.0)
    assert method.schedule.ramped(0.0) == 1
    assert not method.schedule.is_warmup(0.0)
    overrides = ("method.name=mean_teacher", "method.reliability.alpha=0")
    assert load_config("domain", overrides) == load_config("domain_dacs")  # as the how-to page says


@pytest.mark.parametrize("preset", ["domain", "domain_plus", *CITYSCAPES])
def test_across_domains_what_the_teacher_says_weighs_what_it_is_sure_of(preset: str) -> None:
    method = built(load_config(preset))
    assert method.weighting == ConfidentShare(0.968)
    assert not method.schedule.is_warmup(0.0)
    assert method.reliability == Reliability(0.2)


def test_presets_differ_in_what_they_say() -> None:
    plain, plus = load_config("domain"), load_config("domain_plus")
    assert plus.method.prototypes is not None
    assert plus.method.denoising is not None
    assert built(plus).pseudo_label_loss == SymmetricCrossEntropy(0.1)
    assert plus.model_copy(update={"method": plain.method}) == plain
    for name in CITYSCAPES:
        config = load_config(name)
        source, target = config.data.source, config.data.target
        assert source is not None
        assert target is not None
        assert (source.name, target.name) == (name.split("_")[0], "cityscapes")
        assert (source.scale, target.scale) == (0.67 if source.name == "gta5" else 1.0, 0.5)
        assert (config.data.rare_class_sampling is not None) == name.endswith("mit")
        assert config.train.steps == 40000
        twin = load_config(name.replace("synthia", "gta5"))
        same = {"network": config.network, "method": config.method, "train": config.train}
        assert twin.model_copy(update={"data": config.data}) == config
        assert all(getattr(twin, key) == value for key, value in same.items())
        if name.endswith("mit"):
            rates = config.train
            assert (config.network.encoder, config.network.architecture) == ("mit_b5", "Segformer")
            assert (rates.optimizer, rates.lr, rates.head_lr_factor, rates.lr_warmup) == ("adamw", 6e-5, 10, 1500)
        else:
            assert (config.network.encoder, config.train.optimizer) == ("resnet101", "sgd")


def test_keys_become_parts() -> None:
    views = views_of("method.mixing.name=cross_domain")
    assert views.mixing == CrossDomainClassMix(4)
    assert views.jitter is None
    assert isinstance(views_of("method.strong_views.jitter=mixed").jitter, Photometric)
    assert views_of("method.strong_views.jitter=none").jitter is None
    for name in ("fixmatch", "unimatch"):
        keys = ("method.mixing.name=cross_domain", "method.strong_views.jitter=mixed", f"method.name={name}")
        consistency = built(load_config("scenes", keys))
        assert isinstance(consistency, FixMatch)
        assert isinstance(consistency.mix.jitter, Photometric)
        assert consistency.mix.mixing == CrossDomainClassMix(6)


def test_what_is_jittered_once_mixed_is_not_jittered_before() -> None:
    keys = (*SMALL, "train.batch_size=2", "train.crop_size=32", "data.workers=0")
    differ = {}
    for jitter in ("mixed", "unlabeled"):
        config = load_config("domain", [*keys, f"method.strong_views.jitter={jitter}"])
        source = build_source(config.data, seed=0)
        batch = next(iter(build_batches(config, source, semi_supervised=True, rank=0, world_size=1)(0)))
        differ[jitter] = batch.strong_jitter is not None
    assert differ == {"mixed": False, "unlabeled": True}
