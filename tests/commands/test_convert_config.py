"""Configuration files of other code: what each key becomes, what is said of the rest, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from u2pl.commands.convert_config import convert_config
from u2pl.config.overrides import load_config
from u2pl.errors import InputError

RELEASED: dict[str, Any] = {
    "dataset": {
        "type": "pascal_semi",
        "train": {
            "data_root": "../../VOC2012",
            "data_list": "../splits/183/labeled.txt",
            "flip": True,
            "GaussianBlur": False,
            "rand_resize": [0.5, 2.0],
            "crop": {"type": "rand", "size": [513, 513]},
        },
        "batch_size": 4,
        "n_sup": 183,
        "noise_std": 0.1,
        "workers": 2,
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "ignore_label": 255,
    },
    "trainer": {
        "epochs": 80,
        "optimizer": {"type": "SGD", "kwargs": {"lr": 0.001, "momentum": 0.9, "weight_decay": 0.0001}},
        "lr_scheduler": {"mode": "poly", "kwargs": {"power": 0.9}},
        "unsupervised": {"TTA": False, "drop_percent": 80, "apply_aug": "cutmix"},
        "contrastive": {
            "negative_high_entropy": True,
            "low_rank": 3,
            "high_rank": 20,
            "current_class_threshold": 0.3,
            "num_negatives": 50,
            "num_queries": 256,
            "temperature": 0.5,
        },
    },
    "criterion": {"type": "ohem", "kwargs": {"thresh": 0.7, "min_kept": 100000}},
    "net": {
        "num_classes": 21,
        "sync_bn": True,
        "ema_decay": 0.99,
        "aux_loss": {"aux_plane": 1024, "loss_weight": 0.4},
        "encoder": {
            "type": "u2pl.models.resnet.resnet101",
            "kwargs": {"multi_grid": True, "fpn": True, "replace_stride_with_dilation": [False, True, True]},
        },
        "decoder": {"kwargs": {"inner_planes": 256, "dilations": [12, 24, 36]}},
    },
}
LONG = "/a long name" * 20
UNIMATCH: dict[str, Any] = {
    "dataset": "cityscapes",
    "nclass": 19,
    "crop_size": 801,
    "data_root": "/data/Cityscapes",
    "epochs": 240,
    "batch_size": 2,
    "lr": 0.005,
    "lr_multi": 1.0,
    "criterion": {"name": "OHEM", "kwargs": {"ignore_index": 255, "thresh": 0.7, "min_kept": 200000}},
    "conf_thresh": 0,
    "backbone": "resnet101",
    "multi_grid": True,
    "replace_stride_with_dilation": [False, False, True],
    "dilations": [6, 12, 18],
}


def changed(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    name, _, rest = key.partition(".")
    if not rest:
        return {**{each: old for each, old in tree.items() if each != name}, **({} if value is None else {name: value})}
    return {**tree, name: changed(tree[name], rest, value)}


def convert(tmp_path: Path, tree: Any) -> tuple[Any, list[str]]:
    path = tmp_path / "experiment" / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    text, notes = convert_config(path)
    (tmp_path / "ours.yaml").write_text(text)
    return load_config(tmp_path / "ours.yaml"), notes


def test_the_released_code(tmp_path: Path) -> None:
    config, notes = convert(tmp_path, RELEASED)
    expected = {
        "data.name": "pascal_voc",
        "data.root": str(tmp_path.parent / "VOC2012"),
        "data.labeled": str(tmp_path / "splits/183/labeled.txt"),
        "data.workers": 2,
        "network.encoder": "resnet101",
        "network.output_stride": 8,
        "network.multi_grid": [2, 2, 4],
        "network.aspp_dilations": [12, 24, 36],
        "network.channels": 256,
        "network.auxiliary": True,
        "network.pretrained": True,
        "network.mean": None,
        "method.name": "u2pl",
        "method.reliability.alpha": pytest.approx(0.2),
        "method.schedule.warmup": 1 / 80,
        "method.mixing.name": "cutmix",
        "method.teacher.ema_decay": 0.99,
        "method.negative_keys.low_rank": 3,
        "method.negative_keys.high_rank": 20,
        "method.contrast.min_probability": 0.3,
        "method.contrast.anchors": 256,  # the release draws 256 queries with 50 negatives each
        "method.contrast.negatives": 50,
        "method.contrast.temperature": 0.5,
        "method.loss_weights.contrastive": 1.0,  # the release's, if its file does not say
        "method.loss_weights.unsupervised": 1.0,
        "method.loss_weights.auxiliary": 0.4,
        "method.supervised_loss.name": "ohem",
        "method.supervised_loss.threshold": 0.7,
        "method.supervised_loss.min_kept": 100000,
        "train.epochs": 80,
        "train.batch_size": 4,
        "train.crop_size": 513,
        "train.scale_range": [0.5, 2.0],
        "train.flip": 0.5,
        "train.sync_batch_norm": True,
        "train.optimizer": "sgd",
        "train.momentum": 0.9,
        "train.weight_decay": 0.0001,
        "train.lr": 0.001,
        "train.head_lr_factor": 10.0,
        "train.power": 0.9,
    }
    assert {key: config.value(key) for key in expected} == expected
    assert {note.partition(":")[0] for note in notes} == {
        *("dataset.train.GaussianBlur", "dataset.train.crop.type", "dataset.noise_std"),
        *("trainer.unsupervised.TTA", "trainer.contrastive.negative_high_entropy", "net.aux_loss.aux_plane"),
    }


@pytest.mark.parametrize(
    ("key", "value", "ours", "expected"),
    [
        ("trainer.unsupervised", None, "method.name", "supervised"),
        ("trainer.contrastive", None, "method.name", "mean_teacher"),
        ("trainer.unsupervised.apply_aug", "classmix", "method.mixing.name", "classmix"),
        ("trainer.unsupervised.apply_aug", False, "method.mixing.name", "none"),
        ("trainer.unsupervised.apply_aug", "cutout", "method.mixing.name", "cutout"),
        ("trainer.unsupervised.apply_aug", None, "method.mixing.name", "none"),
        ("trainer.unsupervised.drop_percent", None, "method.reliability.alpha", pytest.approx(0.2)),
        ("trainer.unsupervised.loss_weight", 2.5, "method.loss_weights.unsupervised", 2.5),
        ("trainer.contrastive.loss_weight", 0.3, "method.loss_weights.contrastive", 0.3),
        ("trainer.sup_only_epoch", 0, "method.schedule.warmup", 0),
        ("trainer.sup_only_epoch", 200, "method.schedule.warmup", 1),
        ("trainer.optimizer.type", "AdamW", "train.optimizer", "adamw"),
        ("trainer.optimizer.kwargs.momentum", 0.8, "train.momentum", 0.8),
        ("trainer.optimizer.kwargs.weight_decay", 0.02, "train.weight_decay", 0.02),
        ("net.sync_bn", False, "train.sync_batch_norm", False),
        ("net.aux_loss.loss_weight", 0.7, "method.loss_weights.auxiliary", 0.7),
        ("dataset.train.rand_resize", [0.7, 1.5], "train.scale_range", [0.7, 1.5]),
        ("dataset.train.data_root", "/data/a b: #c", "data.root", "/data/a b: #c"),
        ("dataset.train.data_root", f"/data{LONG}", "data.root", f"/data{LONG}"),
        ("dataset.type", "cityscapes_semi", "train.head_lr_factor", 1),
        ("dataset.mean", [127.5, 127.5, 127.5], "network.mean", [0.5, 0.5, 0.5]),
        ("dataset.mean", [127.5, 127.5, 127.5], "network.std", [0.229, 0.224, 0.225]),
        ("dataset.std", [255, 255, 255], "network.std", [1, 1, 1]),
        ("criterion.kwargs.thresh", 0.6, "method.supervised_loss.threshold", 0.6),
        ("dataset.train.flip", False, "train.flip", 0),
        ("dataset.train.crop.size", [400, 800], "train.crop_size", [400, 800]),
        ("criterion.type", "CELoss", "method.supervised_loss.name", "cross_entropy"),
        ("net.encoder.kwargs.replace_stride_with_dilation", [False, False, True], "network.output_stride", 16),
        ("net.encoder.kwargs.replace_stride_with_dilation", [False, False, True], "network.multi_grid", None),
        ("net.encoder.kwargs.replace_stride_with_dilation", [False, False, False], "network.output_stride", 32),
    ],
)
def test_a_key_of_the_released_code(tmp_path: Path, key: str, value: Any, ours: str, expected: Any) -> None:
    tree = changed(RELEASED, key, value)
    if key == "trainer.unsupervised":
        tree = changed(tree, "trainer.contrastive", None)
    assert convert(tmp_path, tree)[0].value(ours) == expected


def test_unimatch(tmp_path: Path) -> None:
    config, notes = convert(tmp_path, UNIMATCH)
    assert notes == []
    assert (config.method.name, config.method.threshold) == ("unimatch", 0)
    assert (config.data.name, config.data.root) == ("cityscapes", "/data/Cityscapes")
    assert (config.network.encoder, config.network.output_stride) == ("resnet101", 16)
    assert config.network.aspp_dilations == [6, 12, 18]
    assert (config.train.crop_size, config.train.epochs, config.train.lr) == (801, 240, 0.005)
    assert (config.train.optimizer, config.train.weight_decay, config.train.head_lr_factor) == ("sgd", 1e-4, 1)
    assert (config.network.pretrained, config.train.batch_size) == (True, 2)


@pytest.mark.parametrize("locked", [False, True])
def test_unimatch_v2(tmp_path: Path, *, locked: bool) -> None:
    tree = {
        **UNIMATCH,
        "backbone": "dinov2_base",
        "lock_backbone": locked,
        "lr": 0.000005,
        "lr_multi": 40.0,
        "conf_thresh": 0.95,
    }
    for key in ("multi_grid", "replace_stride_with_dilation", "dilations"):
        del tree[key]
    config, notes = convert(tmp_path, tree)
    assert notes == []
    assert config.method.name == "unimatch_v2"
    assert (config.network.name, config.network.architecture, config.network.encoder) == ("smp", "DPT", "dinov2_base")
    assert (config.train.optimizer, config.train.lr, config.train.head_lr_factor) == ("adamw", 5e-6, 40)
    assert (config.train.weight_decay, config.method.threshold) == (0.01, 0.95)
    assert (config.network.pretrained, bool(config.network.freeze)) == (True, locked)


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ("[1, 2]", "holds no sections"),
        ("a: [", "line 1"),
        ({"lr": 3}, "has no key backbone; give the config.yaml of U2PL's released code"),
        ({"dataset": {"type": "pascal_semi"}}, "has no key trainer"),
        (changed(RELEASED, "dataset.type", "ade20k"), "dataset.type: 'ade20k' has no counterpart"),
        (changed(RELEASED, "dataset.type", None), "has no key dataset.type"),
        (changed(RELEASED, "trainer.unsupervised.apply_aug", "mosaic"), "apply_aug: 'mosaic' has no counterpart"),
        (changed(RELEASED, "trainer.optimizer.kwargs.lr", "fast"), "trainer.optimizer.kwargs.lr: 'fast' is no number"),
        (changed(RELEASED, "net.encoder.type", "models.vit"), "encoder: 'vit' has no counterpart"),
        ({**UNIMATCH, "dataset": "coco"}, "dataset: 'coco' has no counterpart"),
        ({**UNIMATCH, "crop_size": "large"}, "train.crop_size"),
        ({**UNIMATCH, "crop_size": [[1], [2]]}, "train.crop_size"),
        ({**UNIMATCH, "dataset": {"name": "pascal"}}, "dataset: {'name': 'pascal'} has no counterpart"),
        ({**UNIMATCH, "dataset": [["pascal"]]}, "has no counterpart"),
        ({**UNIMATCH, "epochs": None}, "has no key epochs"),
        ({**UNIMATCH, "epochs": 0}, "epochs: 0 is no number above 0"),
        ({**UNIMATCH, "lr": True}, "lr: True is no number"),
        (changed(RELEASED, "trainer.epochs", None), "has no key trainer.epochs"),
        (changed(RELEASED, "trainer.epochs", float("nan")), "trainer.epochs: nan is no number above 0"),
        (changed(RELEASED, "dataset.mean", 127.5), "dataset.mean: 127.5 is no list of three numbers"),
        (changed(RELEASED, "dataset.std", [1, "a", 2]), "dataset.std: .* is no list of three numbers"),
        (changed(RELEASED, "dataset.train.flip", "often"), "dataset.train.flip: 'often' has no counterpart"),
    ],
)
def test_what_cannot_be_converted_is_one_line(tmp_path: Path, tree: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        convert(tmp_path, tree)
    assert "config.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_names_stay_in_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a\nb.yaml"
    path.write_text(yaml.safe_dump({**UNIMATCH, "x\ndata: {root: elsewhere}": "\x1b[31m"}))
    text, [note] = convert_config(path)
    assert yaml.safe_load(text)["data"]["root"] == "/data/Cityscapes"
    assert "\n" not in note
    assert "\x1b" not in note
