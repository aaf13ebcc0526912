"""What `auto` becomes, by numbers computed by hand; and what no choice may depend on."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from u2pl.auto.choices import Choice, like
from u2pl.auto.facts import Facts, Precision
from u2pl.auto.rules import fit
from u2pl.build import build_negative_keys
from u2pl.config.fields import AUTO
from u2pl.config.overrides import load_config
from u2pl.config.preset_files import preset_names
from u2pl.config.schema import Config, may_be_auto
from u2pl.errors import InputError

GIB = 2**30
#: 46 labels of CamVid at half size, on a laptop.
CAMVID: dict[str, Any] = {
    **{"labeled": 46, "unlabeled": 321, "val": 101, "classes": 11, "height": 180, "width": 240},
    **{"shown": 8.8, "uncommon": 0.5},
    **{"device": "cpu", "memory": 16 * GIB, "host_memory": 16 * GIB, "cores": 2, "processes": 1},
}
THINGS = {"shown": 2.1, "uncommon": 1.2}  #: an image shows one or two, as VOC animals
ON_A_GPU = {"device": "cuda", "memory": 80 * GIB, "host_memory": 128 * GIB, "cores": 16}
CITIES = {**ON_A_GPU, "labeled": 2000, "unlabeled": 8000, "classes": 19, "height": 1024, "width": 2048}
METHODS = ("supervised", "mean_teacher", "fixmatch", "unimatch", "unimatch_v2", "u2pl")


def chosen(overrides: tuple[str, ...] = (), **facts: Any) -> tuple[Config, tuple[Choice, ...]]:
    return fit(load_config("folder", overrides), Facts(**{**CAMVID, **facts}))


def lines(overrides: tuple[str, ...] = (), **facts: Any) -> str:
    return "\n".join(map(str, chosen(overrides, **facts)[1]))


def ranks(config: Config, num_classes: int) -> tuple[int, int]:
    """r_l and r_h of a run."""
    return build_negative_keys(config.method, num_classes).ranks(num_classes)


def everything_auto() -> Config:
    return load_config("folder", [f"{key}=auto" for key in may_be_auto()])


def with_method(config: Config, name: str) -> Config:
    return config.model_copy(update={"method": config.method.model_copy(update={"name": name})})


@pytest.mark.parametrize(
    ("facts", "overrides", "expected"),
    [
        (  # 24 * 367 / 8 = 1101 steps are raised to 1200; 1 - 1 / (0.15 * 720) = 0.9907
            {},
            (),
            {
                **{"data.cache": True, "data.workers": 0, "network.name": "smp", "network.architecture": "FPN"},
                **{
                    "method.schedule.warmup": 0.4,
                    "method.schedule.ramp": 0.2,
                    "method.teacher.ema_decay": 0.99,
                    "train.jitter": True,
                },
                **{"method.supervised_loss.name": "balanced", "method.unsupervised_loss.name": "balanced"},
                **{"method.mixing.name": "cross_domain", "method.strong_views.jitter": "mixed"},
                **{
                    "method.negative_keys.low_rank": 2,
                    "method.negative_keys.high_rank": 11,
                    "method.contrast.bank_size": 5000,
                    "method.contrast.keys_per_step": 512,
                },
                **{"train.steps": 1200, "train.eval_every": 300, "train.batch_size": 8, "train.crop_size": 160},
                **{"train.scale_range": [0.75, 1.5], "train.optimizer": "adamw", "train.lr": 1e-3},
                **{"train.head_lr_factor": 1, "train.weight_decay": 0.01, "train.lr_warmup": 0},
            },
        ),
        (  # 24 * 700 / 8 = 2100; 101 labels of 5 classes are enough: 1 - 1 / (0.15 * 1575) = 0.9958
            {"labeled": 101, "unlabeled": 599, "classes": 5},
            (),
            {"train.steps": 2100, "method.schedule.warmup": 0.25, "method.teacher.ema_decay": 0.995},
        ),
        ({"labeled": 101, "classes": 6}, (), {"method.schedule.warmup": 0.4}),  # 101 < 20 * 6
        ({"labeled": 120, "classes": 6}, (), {"method.schedule.warmup": 0.25}),
        ({"labeled": 100, "classes": 2}, (), {"method.schedule.warmup": 0.4}),
        ({"unlabeled": 5000}, (), {"train.steps": 4000, "method.teacher.ema_decay": 0.997}),  # 0.15 * 2400 = 360
        (  # 80 * 10000 / 8 = 100000 steps are cut to 20000; 0.15 * 15000 = 2250; 512 is not 0.6 of 1024
            CITIES,
            (),
            {
                **{"train.steps": 20000, "train.eval_every": 5000, "train.crop_size": 512, "train.batch_size": 8},
                **{"train.scale_range": [0.5, 2.0], "method.schedule.warmup": 0.25, "method.teacher.ema_decay": 0.999},
                **{
                    "method.negative_keys.low_rank": 3,
                    "method.negative_keys.high_rank": 19,
                    "method.contrast.bank_size": 30000,
                },
                **{"method.contrast.keys_per_step": 1024, "data.workers": 8, "data.cache": False},
            },
        ),
        (
            {**CITIES, "unlabeled": 2000, "processes": 4},
            (),
            {"train.steps": 10000, "data.workers": 3},
        ),  # 80 * 4000 / 32
        ({**CITIES, "memory": 8 * GIB}, (), {"train.batch_size": 4}),  # 16 * 512 * 512 * 2400 bytes are 9.4 GiB
        ({**ON_A_GPU, "unlabeled": 0}, (), {"train.steps": 4000}),
        ({"memory": GIB}, (), {"train.batch_size": 4}),  # 16 * 160 * 160 * 2400 bytes are 0.92 GiB
        # 150 classes of 128 numbers: 0.01 * 8 GiB / (150 * 512) = 1118 keys
        (
            {"classes": 150, "memory": 8 * GIB},
            (),
            {"method.contrast.bank_size": 1100, "method.contrast.keys_per_step": 512},
        ),
        ({"classes": 150, "memory": 8 * GIB, "processes": 4}, (), {"method.contrast.keys_per_step": 137}),
        ({}, ("method.contrast.bank_size=64",), {"method.contrast.keys_per_step": 32}),
        (
            {},
            ("method.contrast.background_bank_size=100",),
            {"method.contrast.bank_size": 5000, "method.contrast.keys_per_step": 50},
        ),
        ({"processes": 2}, ("method.contrast.keys_per_step=9000",), {"method.contrast.bank_size": 18000}),
        # of the network and its weights
        ({}, ("network.weights=w.pth",), {"train.lr": 1e-4, "train.head_lr_factor": 10, "train.optimizer": "adamw"}),
        ({}, ("network.pretrained=true",), {"train.lr": 1e-4, "train.head_lr_factor": 10, "train.jitter": True}),
        ({}, ("train.optimizer=sgd",), {"train.lr": 0.01, "train.weight_decay": 1e-4, "train.head_lr_factor": 1}),
        (
            {},
            ("train.optimizer=sgd", "network.pretrained=true"),
            {"train.lr": 0.001, "train.head_lr_factor": 10, "train.lr_warmup": 0},
        ),
        (  # 0.15 * 0.9 * 4000 = 540
            {**ON_A_GPU, "height": 600, "width": 500},
            ("network.encoder=dinov2_small", "network.pretrained=true"),
            {
                **{"network.name": "smp", "network.architecture": "DPT", "train.crop_size": 476, "train.lr": 5e-6},
                **{
                    "train.head_lr_factor": 40,
                    "train.lr_warmup": 100,
                    "method.schedule.warmup": 0.1,
                    "method.teacher.ema_decay": 0.996,
                },
                "train.steps": 4000,
            },
        ),
        (
            {**ON_A_GPU, "height": 600, "width": 500},
            ("network.encoder=mit_b2", "network.pretrained=true"),
            {"network.architecture": "Segformer", "train.crop_size": 480, "train.lr": 6e-5, "train.lr_warmup": 200},
        ),
        ({}, ("network.encoder=mit_b0",), {"train.lr": 1e-4, "train.head_lr_factor": 1, "method.schedule.warmup": 0.4}),
        ({}, ("network.encoder=tu-vit_small_patch16_224",), {"network.architecture": "DPT", "train.crop_size": 160}),
        ({}, ("network.encoder=tu-maxvit_tiny_tf_224",), {"network.architecture": "FPN"}),
        ({}, ("network.low_level_channels=48",), {"network.name": "deeplabv3plus", "network.architecture": None}),
        ({}, ("network.channels=64",), {"network.name": "smp", "network.architecture": "FPN"}),
        ({}, ("network.freeze=2",), {"network.name": "smp", "network.architecture": "FPN"}),
        ({}, ("network.output_stride=8",), {"network.name": "deeplabv3plus"}),
        ({}, ("network.architecture=PAN", "network.output_stride=16"), {"network.name": "smp"}),
        ({}, ("network.name=deeplabv3plus",), {"network.architecture": None}),
        # keys that are set are what the others go by
        ({}, ("train.crop_size=[64, 320]",), {"train.scale_range": [0.5, 2.0], "train.batch_size": 8}),
        ({}, ("train.steps=50", "network.encoder=mit_b0"), {"train.eval_every": 12, "train.lr_warmup": 5}),
        ({}, ("train.steps=2",), {"train.eval_every": 1, "method.teacher.ema_decay": 0.95}),
        ({}, ("train.batch_size=2",), {"train.steps": 4000}),  # 24 * 367 / 2 = 4404
        (
            {},
            ("train.epochs=10",),
            {"train.steps": 401, "train.eval_every": 100, "method.teacher.ema_decay": 0.972},
        ),  # 3210 / 8
        (
            THINGS,
            ("network.weights=w.pth",),
            {"method.supervised_loss.name": "balanced", "method.unsupervised_loss.name": "cross_entropy"},
        ),
        (THINGS, (), {"method.unsupervised_loss.name": "balanced", "method.mixing.name": "cross_domain"}),
        (
            {},
            (
                "method.unsupervised_loss.name=symmetric",
                "method.unsupervised_loss.reverse_weight=0.1",
            ),
            {"method.supervised_loss.name": "balanced", "method.unsupervised_loss.name": "symmetric"},
        ),
        ({"labeled": 101}, (), {"method.mixing.name": "cutmix", "method.strong_views.jitter": "unlabeled"}),
        (
            THINGS,
            ("network.weights=w.pth",),
            {"method.mixing.name": "cutmix", "method.strong_views.jitter": "unlabeled"},
        ),
        # images that show few classes each, to a pretrained encoder: 0.15 * 0.9 * 1200 = 162
        (
            THINGS,
            ("network.weights=w.pth",),
            {
                "method.image_prior.sharpness": 8,
                "method.schedule.warmup": 0.1,
                "method.schedule.ramp": 0.1,
                "method.teacher.ema_decay": 0.993,
            },
        ),
        (
            {**THINGS, "labeled": 101, "uncommon": 0.0, "precision": Precision(0.9, 0.5, 20)},
            ("network.weights=w.pth",),
            {
                **{"method.reliability.min_confidence": 0.95, "method.weighting.name": "reliable_share"},
                **{"method.schedule.warmup": 0.1, "method.schedule.ramp": 0},
                **{"method.teacher.ema_decay": 0.994},  # 0.15 * 0.9 * 1300 = 175
            },
        ),
        *(
            (
                {"labeled": 101, "uncommon": 0.0, "precision": Precision(right, 0.5, 20), **facts},
                ("network.weights=w.pth", *keys),
                {"method.reliability.min_confidence": confidence, "method.weighting.name": weighting},
            )
            for right, facts, keys, confidence, weighting in (
                (0.89, THINGS, (), 0.0, "lambda_u"),
                (0.99, THINGS, ("method.reliability.min_confidence=0.7",), 0.7, "lambda_u"),
                (0.99, THINGS, ("method.weighting.name=reliable_share",), 0.0, "reliable_share"),
                (0.99, {**THINGS, "labeled": 3}, (), 0.0, "lambda_u"),
                (0.99, {"shown": 4.1}, (), 0.0, "lambda_u"),
                (0.99, THINGS, ("data.name=domain",), 0.0, "lambda_u"),
                (0.99, THINGS, ("method.name=weak_u2pl",), 0.0, "lambda_u"),
            )
        ),
        (
            {**THINGS, "labeled": 100, "uncommon": 0.0},
            ("network.weights=w.pth",),
            {
                "method.reliability.min_confidence": 0,
                "method.weighting.name": "lambda_u",
                "method.schedule.warmup": 0.4,
            },
        ),
        (
            {**THINGS, "labeled": 218},
            ("network.weights=w.pth",),
            {
                "method.reliability.min_confidence": 0,
                "method.weighting.name": "lambda_u",
                "method.schedule.warmup": 0.1,
            },
        ),
        *(
            (
                {**THINGS, "labeled": 500, "uncommon": 0.0},
                keys,
                {"method.reliability.min_confidence": 0, "method.weighting.name": "lambda_u"},
            )
            for keys in (
                (),
                ("network.weights=w.pth", "data.name=domain"),
                ("network.weights=w.pth", "method.name=weak_u2pl"),
            )
        ),
        ({**THINGS, "uncommon": 2.0}, ("network.pretrained=true",), {"method.image_prior.sharpness": 8}),
        (
            {**THINGS, "uncommon": 2.1},
            ("network.pretrained=true",),
            {"method.image_prior.sharpness": 0, "method.schedule.warmup": 0.4, "method.mixing.name": "cutmix"},
        ),
        ({**THINGS, "uncommon": 0.0}, ("network.pretrained=true",), {"method.image_prior.sharpness": 0}),
        (
            THINGS,
            (),
            {"method.image_prior.sharpness": 0, "method.schedule.warmup": 0.4, "method.mixing.name": "cross_domain"},
        ),
        (
            THINGS,
            ("network.weights=w.pth", "method.image_prior.sharpness=0"),
            {"method.image_prior.sharpness": 0, "method.schedule.warmup": 0.4, "method.schedule.ramp": 0.2},
        ),
        (
            THINGS,
            ("network.weights=w.pth", "method.name=fixmatch"),
            {"method.image_prior.sharpness": 8.0, "method.threshold": 0.95},
        ),
        ({}, ("method.name=fixmatch",), {"method.threshold": 0.0, "method.unsupervised_loss.name": "balanced"}),
        (THINGS, ("method.name=unimatch_v2",), {"method.threshold": 0.95, "method.teacher.ema_decay": 0.996}),
        (THINGS, ("network.weights=w.pth", "method.name=weak_u2pl"), {"method.schedule.warmup": 0.4}),
        (
            {"shown": 8.8},
            ("network.weights=w.pth",),
            {"method.schedule.warmup": 0.1, "method.schedule.ramp": 0.1},
        ),
        *(
            ({"shown": 8.8}, keys, {"method.schedule.warmup": 0.4})
            for keys in (
                (),
                ("network.weights=w.pth", "method.name=weak_u2pl"),
                ("network.weights=w.pth", "data.name=domain"),
            )
        ),
        ({}, ("network.start_from=runs/a",), {"method.schedule.warmup": 0.05, "train.lr": 1e-4}),
        # scenes, to a pretrained encoder, and what no mask tells
        *(
            (
                {"shown": shown, "uncommon": 1.0},
                ("network.weights=w.pth",),
                {
                    "method.image_prior.sharpness": prior,
                    "method.mixing.name": mixing,
                    "method.unsupervised_loss.name": loss,
                },
            )
            for shown, prior, mixing, loss in (
                (4.0, 8, "cutmix", "cross_entropy"),
                (4.1, 0, "cross_domain", "balanced"),
            )
        ),
        (
            {"labeled": 500},
            ("network.weights=w.pth",),
            {
                **{
                    "method.reliability.min_confidence": 0,
                    "method.weighting.name": "lambda_u",
                    "method.schedule.warmup": 0.1,
                },
                **{"method.mixing.name": "cutmix", "method.unsupervised_loss.name": "balanced"},
            },
        ),
        ({}, ("network.weights=w.pth", "data.name=domain"), {"method.unsupervised_loss.name": "cross_entropy"}),
        ({}, ("data.name=domain",), {"method.unsupervised_loss.name": "balanced"}),
        (
            {},
            (
                "network.weights=w.pth",
                "method.unsupervised_loss.name=symmetric",
                "method.unsupervised_loss.reverse_weight=0.1",
            ),
            {"method.unsupervised_loss.name": "symmetric"},
        ),
        (
            {"shown": 0.0, "uncommon": 0.0},
            ("network.weights=w.pth",),
            {
                "method.image_prior.sharpness": 0,
                "method.mixing.name": "cutmix",
                "method.unsupervised_loss.name": "cross_entropy",
            },
        ),
        ({"labeled": 100}, (), {"method.mixing.name": "cross_domain", "method.strong_views.jitter": "mixed"}),
        (
            {"labeled": 500},
            ("data.name=domain",),
            {"method.mixing.name": "cross_domain", "method.strong_views.jitter": "mixed"},
        ),
        (
            {},
            ("method.name=weak_u2pl",),
            {"method.supervised_loss.name": "cross_entropy", "method.unsupervised_loss.name": "cross_entropy"},
        ),
        ({}, ("method.name=weak_u2pl",), {"method.mixing.name": "cutmix", "method.strong_views.jitter": "unlabeled"}),
        (
            {},
            ("method.name=weak_u2pl", "method.strong_views.jitter=mixed"),
            {"method.mixing.name": "cutmix", "method.strong_views.jitter": "mixed"},
        ),
        ({}, ("method.schedule.warmup=0.9",), {"method.schedule.ramp": 0.1}),
        ({}, ("method.schedule.warmup=1",), {"method.schedule.ramp": 0, "method.teacher.ema_decay": 0.95}),
        # odd data
        (
            {"labeled": 1, "unlabeled": 0, "classes": 2, "height": 40, "width": 40},
            ("method.name=supervised",),
            {
                "train.steps": 1200,
                "train.crop_size": 32,
                "method.negative_keys.low_rank": 1,
                "method.negative_keys.high_rank": 2,
            },
        ),
        ({"height": 20, "width": 2000}, (), {"train.crop_size": 32}),
        ({"height": 20, "width": 20}, ("network.encoder=dinov2_small",), {"train.crop_size": 28}),
        (
            {"height": 3000, "width": 4000},
            (),
            {"train.crop_size": 256, "train.scale_range": [0.5, 2], "data.cache": False},
        ),
        ({"height": 3000, "width": 4000, "unlabeled": 0, "val": 0, "labeled": 80}, (), {"data.cache": True}),  # 3.6 GiB
        # The loader processes share the images, the processes of a training do not.
        (
            {"height": 3000, "width": 4000, "unlabeled": 0, "val": 0, "labeled": 80, "cores": 32},
            ("data.workers=16",),
            {"data.cache": True},
        ),
        (
            {"height": 3000, "width": 4000, "unlabeled": 0, "val": 0, "labeled": 80, "processes": 2},
            (),
            {"data.cache": False},
        ),
        ({"labeled": 0, "unlabeled": 9}, (), {"train.steps": 1200}),
        ({"labeled": 0}, ("data.tags=tags.csv",), {"train.scale_range": [0.75, 1.0]}),
        ({"cores": 1, "processes": 2}, ("data.cache=false",), {"data.workers": 1}),
        ({}, ("data.cache=false",), {"data.workers": 1}),
        ({"height": 3000, "width": 4000}, (), {"data.cache": False, "data.workers": 1}),
        ({"cores": 32}, (), {"data.cache": True, "data.workers": 0}),
        ({"device": "mps"}, (), {"train.crop_size": 160, "train.steps": 1200}),
    ],
)
def test_choices(facts: dict[str, Any], overrides: tuple[str, ...], expected: dict[str, Any]) -> None:
    config, _ = chosen(overrides, **facts)
    assert {key: config.value(key) for key in expected} == expected
    assert config.auto_keys() == []


def test_choices_are_of_the_schema_and_keys_that_are_set_stay() -> None:
    draw = random.Random(0)
    plain, everything = load_config("camvid"), everything_auto()
    for _ in range(200):
        facts = Facts(
            **{name: draw.choice((0, 1, 30, 2000)) for name in ("labeled", "unlabeled", "val")},
            classes=draw.choice((2, 3, 19, 150)),
            **{name: draw.choice((1, 33, 500, 9000)) for name in ("height", "width")},
            **{name: draw.choice((0.0, 1.5, 9.0)) for name in ("shown", "uncommon")},
            device=draw.choice(("cpu", "cuda", "mps")),
            **{name: draw.choice((GIB, 80 * GIB)) for name in ("memory", "host_memory")},
            **{name: draw.choice((1, 8)) for name in ("cores", "processes")},
        )
        config, kept = with_method(everything, draw.choice(METHODS)), set()
        for key in may_be_auto():
            if draw.random() < 0.3:
                kept.add(key)
                config = config.with_values({key: plain.value(key)})
        found, choices = fit(config, facts)
        assert found.auto_keys() == []
        assert Config.model_validate(found.model_dump()) == found
        assert all(found.value(key) == plain.value(key) for key in kept)
        named = [key for choice in choices for key in choice.values]
        assert sorted(named) == sorted(set(may_be_auto()) - kept)
        assert all(0 < len(choice.because) <= 60 for choice in choices)
        contrast, keys = found.method.contrast, found.method.negative_keys
        if not {"method.contrast.bank_size", "method.contrast.keys_per_step"} <= kept:
            assert contrast is not None
            assert contrast.keys_per_step * facts.processes <= max(contrast.bank_size, facts.processes)
        if not kept & {"method.negative_keys.low_rank", "method.negative_keys.high_rank"}:
            assert ranks(found, facts.classes) == (keys.low_rank, keys.high_rank)


def test_camvid_is_trained_as_its_preset_which_was_measured() -> None:
    found, preset = chosen()[0], load_config("camvid")
    low, high = ranks(preset, CAMVID["classes"])
    keys = {"method.negative_keys.low_rank": low, "method.negative_keys.high_rank": high}
    assert found.method == preset.with_values(keys).method
    assert found.train == preset.train.model_copy(update={"eval_every": 300})
    assert found.network == preset.network


def test_runs_that_are_compared_are_alike() -> None:
    """Whatever the method and however many images are labeled: network, optimisation, length and crops."""
    folder = load_config("folder")
    for facts, device in itertools.product(({}, {"height": 999, "width": 700, "classes": 3}), ({}, ON_A_GPU)):
        alike = []
        for method, labeled in itertools.product(METHODS, (1, 46, 1000, 2000)):
            known = {**CAMVID, **facts, **device, "labeled": labeled, "unlabeled": 2000 - labeled}
            alike.append(fit(with_method(folder, method), Facts(**known))[0])
        assert all(config.train == alike[0].train and config.network == alike[0].network for config in alike)


@pytest.mark.parametrize(
    ("tags", "side", "hint"),
    [
        ("data.tags=null", 1000, None),
        ("data.tags=null", 1100, "; data.scale=0.5 would show the network more of each"),
        ("data.tags=tags.csv", 420, None),
        (
            "data.tags=tags.csv",
            1100,
            "; data.scale=0.2 would show the network more of each, as tags are of whole images",
        ),
    ],
)
def test_large_images_are_better_scaled_down(tags: str, side: int, hint: str | None) -> None:
    told = lines((tags,), height=side, width=side)
    assert ("data.scale" in told) == (hint is not None)
    assert hint is None or hint in " ".join(told.split())
    assert "data.scale" not in lines((tags, "data.scale=0.5"), height=side, width=side)


def test_a_line_names_its_keys_and_says_why() -> None:
    text = lines()
    assert len(text.splitlines()) == 19
    for key in load_config("folder").auto_keys():
        assert f"{key} " in text
    assert "\nauto: train.steps 1200, train.eval_every 300: 24 passes over 367 images" in text
    assert "46 labels is seen about 209 times; roughly 15 min on 2 cores" in text  # 1200 * 8 / 46
    warmup = "method.schedule.warmup 0.4, method.schedule.ramp 0.2"
    assert f"\nauto: {warmup}: 46 labels for 11 classes are few" in text
    assert "images of 180x240" in text
    assert "data.scale" not in text
    assert "data.scale=0.2 would" in lines(height=3000, width=4000)  # two crops of 256 are 0.17 of it
    assert "data.scale" not in lines(("data.scale=0.9",), height=3000, width=4000)
    assert "min on" not in lines(**ON_A_GPU)
    assert "is seen" not in lines(labeled=0)
    assert "eval_every" not in lines(("train.eval_every=7",))
    told = lines(("train.steps=5", "train.eval_every=7")).splitlines()
    assert len([line for line in told if line.startswith("auto: train.")]) == 5  # no line on the length


def test_what_a_method_does_not_use_is_chosen_and_not_told() -> None:
    config, choices = chosen(("method.name=supervised",))
    assert config.auto_keys() == []
    told = {key.partition(".")[0] for choice in choices if choice.used for key in choice.values}
    assert told == {"data", "network", "method", "train"}
    _, choices = chosen(("method.name=mean_teacher",))
    assert [choice.used for choice in choices].count(False) == 3  # threshold, ranks and bank
    assert "method.image_prior.sharpness 0.0: an encoder from scratch cannot tell which images are alike" in lines()
    assert "an image shows 2.1 classes, 1.2 of them uncommon" in lines(("network.weights=w.pth",), **THINGS)


def test_a_contrast_that_is_left_out_gets_no_bank() -> None:
    config, choices = chosen(("method.contrast=false",))
    assert config.method.contrast is None
    assert config.auto_keys() == []
    assert not [key for choice in choices for key in choice.values if key.startswith("method.contrast")]


def test_one_class_leaves_no_rank() -> None:
    config, _ = chosen(classes=1)
    with pytest.raises(InputError, match=r"^method\.negative_keys: low_rank and high_rank: 1 and 1 leave no rank"):
        build_negative_keys(config.method, 1)


def test_ranks_before_anything_is_chosen() -> None:
    assert ranks(load_config("folder"), 11) == ranks(Config(), 11) == (2, 11)


@pytest.mark.parametrize(
    "key", ["train.log_every", "train.momentum", "method.reliability.alpha", "seed", "method.name", "data.scale"]
)
def test_auto_where_there_is_no_choice_is_an_error(key: str) -> None:
    with pytest.raises(InputError, match=rf"^{key.replace('.', '[.]')}: should be .*, not 'auto'$"):
        load_config("folder", [f"{key}=auto"])


def test_auto_of_a_file_and_of_an_override(tmp_path: Any) -> None:
    (tmp_path / "mine.yaml").write_text("train: {steps: auto, lr: 0.5}\n")
    config = load_config(tmp_path / "mine.yaml", ["method.schedule.warmup=auto", "train.lr=auto"])
    assert config.auto_keys() == ["method.schedule.warmup", "train.steps", "train.lr"]
    assert load_config(tmp_path / "mine.yaml", ["train.steps=9"]).auto_keys() == []
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "again.yaml") == config
    with pytest.raises(InputError, match=r"^train\.steps: should be a valid integer.*not 'Auto'"):
        load_config(None, ["train.steps=Auto"])


def test_auto_set_last_counts_before_epochs() -> None:
    assert load_config("pascal_voc", ["train.steps=auto"]).train.epochs is None


def test_presets_that_were_measured_or_are_the_papers_choose_nothing() -> None:
    measured = ("scenes", "camvid", "pascal_voc", "cityscapes", "folder_dinov2", "folder_mit")
    names = [name for name in preset_names() if name in measured or name.startswith(("voc_", "cityscapes_"))]
    assert len(names) > 20
    assert not [name for name in names if load_config(name).auto_keys()]
    assert not Config().auto_keys()


def test_like_fills_what_is_auto_and_asked_for() -> None:
    model = load_config("camvid", ["train.lr=0.5", "network.architecture=PAN"])
    config = like(load_config("folder", ["train.steps=7"]), model, ["train.steps", "train.lr", "network.architecture"])
    assert (config.train.steps, config.train.lr, config.network.architecture) == (7, 0.5, "PAN")
    assert config.train.crop_size == AUTO


@pytest.mark.parametrize(
    ("facts", "steps", "compiled", "because"),
    [
        (ON_A_GPU, 1000, True, "1000 steps repay it"),
        (ON_A_GPU, 999, False, "999 steps do not repay it"),
        ({**ON_A_GPU, "uncompilable": "no Triton here"}, 1000, False, "no Triton here"),
        ({**ON_A_GPU, "processes": 2}, 1000, False, "it is not measured with several processes"),
        ({}, 4000, False, "on cpu it gains little"),
        ({"device": "mps"}, 4000, False, "on mps it gains little"),
    ],
)
def test_compilation(facts: dict[str, Any], steps: int, compiled: bool, because: str) -> None:
    config, choices = chosen((f"train.steps={steps}",), **facts)
    assert config.train.compile is compiled
    (choice,) = [choice for choice in choices if "train.compile" in choice.values]
    assert choice.because == because
    assert chosen((f"train.steps={steps}", "train.compile=true"), **facts)[0].train.compile is True


@pytest.mark.parametrize(
    ("facts", "overrides", "encoder", "pretrained"),
    [
        ({}, (), "tu-tf_efficientnet_lite2", True),
        ({"device": "mps"}, (), "tu-tf_efficientnet_lite2", True),
        (ON_A_GPU, (), "dinov2_base", True),
        ({**ON_A_GPU, "memory": 24 * GIB}, (), "dinov2_small", True),
        ({**ON_A_GPU, "memory": 8 * GIB}, (), "tu-tf_efficientnet_lite2", True),
        (ON_A_GPU, ("network.architecture=FPN",), "tu-tf_efficientnet_lite2", True),
        (ON_A_GPU, ("network.deep_stem=true",), "resnet50", True),
        ({}, ("network.name=deeplabv3plus",), "resnet18", True),
        (ON_A_GPU, ("network.pretrained=false",), "resnet18", False),
        ({}, ("network.encoder=mobilenet_v2",), "mobilenet_v2", True),
        ({}, ("network.encoder=mobilenet_v2", "network.pretrained=false"), "mobilenet_v2", False),
        ({}, ("network.encoder=mobilenet_v2", "network.weights=w.pt"), "mobilenet_v2", False),
        ({}, ("network.pretrained=true",), "tu-tf_efficientnet_lite2", True),
        ({}, ("network.weights=w.pt",), "tu-tf_efficientnet_lite2", False),
    ],
)
def test_the_encoder_suits_the_device(
    facts: dict[str, Any], overrides: tuple[str, ...], encoder: str, *, pretrained: bool
) -> None:
    config, choices = chosen(overrides, unfetchable=lambda name: None, **facts)
    assert (config.network.encoder, config.network.pretrained) == (encoder, pretrained)
    assert not any(choice.warning for choice in choices)
    architecture = {"dinov2": "DPT", "resnet": None}.get(encoder[:6], "FPN")
    if config.network.name == "smp" and encoder != "resnet18":
        assert config.network.architecture == architecture


@pytest.mark.parametrize(
    ("overrides", "asked", "encoder"),
    [
        ((), "tu-tf_efficientnet_lite2", "resnet18"),
        (("network.encoder=resnet34",), "resnet34", "resnet34"),
        (("network.encoder=resnet34", "network.name=deeplabv3plus"), "tu-resnet34.tv_in1k", "resnet34"),
        (("network.encoder=resnet50", "network.name=deeplabv3plus"), "tu-resnet50s.gluon_in1k", "resnet50"),
    ],
)
def test_without_weights_it_says_once_what_that_costs_and_begins_from_scratch(
    overrides: tuple[str, ...], asked: str, encoder: str
) -> None:
    names: list[str] = []

    def unfetchable(name: str) -> str:
        names.append(name)
        return "no connection to the hub"

    config, choices = chosen(overrides, unfetchable=unfetchable)
    assert names == [asked]
    assert (config.network.encoder, config.network.pretrained) == (encoder, False)
    assert config.train.lr == 1e-3  # that of a network from scratch
    [warning] = [choice.warning for choice in choices if choice.warning]
    for part in ("no connection to the hub", "47.6 instead of 54.0", "network.weights=FILE"):
        assert part in warning


def test_a_pretrained_transformer_does_not_believe_every_pixel() -> None:
    config, choices = chosen(("network.encoder=dinov2_small",), unfetchable=lambda name: None, **THINGS)
    assert config.method.reliability.min_confidence == 0.95
    assert config.method.weighting.name == "reliable_share"
    assert not any(choice.to_measure for choice in choices)
    scenes, _ = chosen(("network.encoder=dinov2_small",), unfetchable=lambda name: None)
    assert scenes.method.reliability.min_confidence == 0
