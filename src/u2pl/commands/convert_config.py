"""The command `u2pl convert-config`: configuration files of U2PL's release, UniMatch and UniMatch V2 -> ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from u2pl.commands.foreign_file import GIVE, ForeignFile
from u2pl.config.overrides import load_config
from u2pl.config.strict_yaml import StrictYamlError, load
from u2pl.errors import InputError
from u2pl.paths import read_text
from u2pl.printable import printable

Keys = dict[str, Any]  #: values by key, such as `train.lr`
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_DATA = {"pascal": "pascal_voc", "cityscapes": "cityscapes"}
_STRIDES = {(False, True, True): 8, (False, False, True): 16, (False, False, False): 32}
_ENCODERS = ("resnet18", "resnet34", "resnet50", "resnet101")
_LOSSES = {"celoss": "cross_entropy", "ohem": "ohem"}
_MIXINGS = {"cutmix": "cutmix", "classmix": "classmix", "cutout": "cutout", False: "none", "none": "none"}


def convert_config(path: Path) -> tuple[str, list[str]]:
    """The YAML text of our configuration, and a note for each setting that has no counterpart.

    Raises InputError if the file is of another program, or holds a value that has no counterpart at all.
    """
    try:
        tree = load(read_text(path, give=GIVE))
    except StrictYamlError as error:
        raise InputError(f"{path}: {error}; {GIVE}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds no sections; {GIVE}")
    reading = ForeignFile(path, tree)
    keys = _released(reading) if "trainer" in tree else _unimatch(reading) if "backbone" in tree else None
    if keys is None:
        missing = "trainer" if "dataset" in tree and isinstance(tree["dataset"], dict) else "backbone"
        raise InputError(f"{path}: has no key {missing}; {GIVE}")
    try:
        config = load_config(None, [f"{key}={yaml_value(value)}" for key, value in keys.items()])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    notes = [printable(f"{key}: {value!r} has no counterpart") for key, value in reading.left()]
    sections: dict[str, Any] = {}
    for key in keys:
        *above, name = key.split(".")
        section = sections
        for each in above:
            section = section.setdefault(each, {})
        section[name] = config.value(key)
    text = yaml.safe_dump(sections, sort_keys=False, default_flow_style=None, allow_unicode=True)
    comments = "".join(f"# not taken: {note}\n" for note in notes)
    return f"# Converted from {printable(path.name)}.\n{comments}{text}", notes


def _released(reading: ForeignFile) -> Keys:
    """Of the code released with U2PL."""
    get = reading.get
    name = str(reading.need("dataset.type")).removesuffix("_semi")
    if name not in _DATA:
        raise InputError(f"{reading.path}: dataset.type: {name!r} has no counterpart (known: {', '.join(_DATA)})")
    unsupervised, contrast = reading.has("trainer.unsupervised"), reading.has("trainer.contrastive")
    epochs = reading.length("trainer.epochs")
    keys: Keys = {
        "data.name": _DATA[name],
        "data.root": reading.place("dataset.train.data_root"),
        "data.labeled": reading.place("dataset.train.data_list"),
        "data.workers": reading.number("dataset.workers"),
        **_network(reading, "net.encoder.kwargs.", str(get("net.encoder.type", "resnet101")).rpartition(".")[2]),
        "network.channels": reading.number("net.decoder.kwargs.inner_planes"),
        "network.aspp_dilations": get("net.decoder.kwargs.dilations"),
        "network.auxiliary": reading.has("net.aux_loss") or None,
        "method.loss_weights.auxiliary": reading.number("net.aux_loss.loss_weight"),
        "method.name": "u2pl" if contrast else "mean_teacher" if unsupervised else "supervised",
        **_loss(reading, "criterion.type"),
        "train.epochs": epochs,
        "train.batch_size": reading.number("dataset.batch_size"),
        "train.crop_size": _side(get("dataset.train.crop.size")),
        "train.scale_range": get("dataset.train.rand_resize"),
        "train.flip": reading.one_of("dataset.train.flip", {True: None, False: 0.0}, True),
        "train.optimizer": reading.one_of("trainer.optimizer.type", {"sgd": "sgd", "adamw": "adamw"}, "sgd"),
        "train.lr": reading.number("trainer.optimizer.kwargs.lr"),
        "train.head_lr_factor": 10.0 if name == "pascal" else 1.0,
        "train.momentum": reading.number("trainer.optimizer.kwargs.momentum"),
        "train.weight_decay": reading.number("trainer.optimizer.kwargs.weight_decay"),
        "train.power": reading.number("trainer.lr_scheduler.kwargs.power"),
        "train.sync_batch_norm": get("net.sync_bn"),
    }
    for part in ("dataset.n_sup", "dataset.ignore_label", "net.num_classes", "trainer.lr_scheduler.mode"):
        get(part)
    if unsupervised:
        keys["method.schedule.warmup"] = min(1.0, (reading.number("trainer.sup_only_epoch", 1)) / epochs)
        keys["method.loss_weights.unsupervised"] = reading.number("trainer.unsupervised.loss_weight")
        keys["method.teacher.ema_decay"] = reading.number("net.ema_decay")
        keys["method.reliability.alpha"] = 1 - (reading.number("trainer.unsupervised.drop_percent", 80)) / 100
        keys["method.mixing.name"] = reading.one_of("trainer.unsupervised.apply_aug", _MIXINGS, "none")
    if contrast:
        of = "trainer.contrastive."
        keys["method.negative_keys.low_rank"] = reading.number(f"{of}low_rank")
        keys["method.negative_keys.high_rank"] = reading.number(f"{of}high_rank")
        keys["method.contrast.min_probability"] = reading.number(f"{of}current_class_threshold")
        keys["method.contrast.anchors"] = reading.number(f"{of}num_queries")
        keys["method.contrast.negatives"] = reading.number(f"{of}num_negatives")
        keys["method.contrast.temperature"] = reading.number(f"{of}temperature")
        keys["method.loss_weights.contrastive"] = reading.number(f"{of}loss_weight", 1.0)  # theirs without the key
    return _set(keys)


def _unimatch(reading: ForeignFile) -> Keys:
    """Of UniMatch and UniMatch V2. Their optimisers are in their code."""
    backbone = str(reading.need("backbone"))
    second = backbone.startswith("dino")
    keys: Keys = {
        "data.name": reading.one_of("dataset", _DATA),
        "data.root": reading.place("data_root"),
        "method.name": "unimatch_v2" if second else "unimatch",
        "method.threshold": reading.number("conf_thresh"),
        **_loss(reading, "criterion.name"),
        "train.epochs": reading.length("epochs"),
        "train.batch_size": reading.number("batch_size"),
        "train.crop_size": _side(reading.get("crop_size")),
        "train.lr": reading.number("lr"),
        "train.head_lr_factor": reading.number("lr_multi"),
        "train.optimizer": "adamw" if second else "sgd",
        "train.weight_decay": 0.01 if second else 1e-4,
    }
    reading.get("nclass")
    if second:
        keys |= {"network.name": "smp", "network.architecture": "DPT", "network.encoder": backbone}
        keys |= {"network.pretrained": True, "network.freeze": reading.get("lock_backbone") or None}
    else:
        keys |= _network(reading, "", backbone)
        keys["network.aspp_dilations"] = reading.get("dilations")
    return _set(keys)


def _network(reading: ForeignFile, above: str, encoder: str) -> Keys:
    """DeepLabv3+ on a residual network."""
    if encoder not in _ENCODERS:
        raise InputError(f"{reading.path}: encoder: {encoder!r} has no counterpart (known: {', '.join(_ENCODERS)})")
    mean, std = reading.colour("dataset.mean"), reading.colour("dataset.std")
    own = mean is not None and (mean, std) != _IMAGENET
    stride = reading.one_of(f"{above}replace_stride_with_dilation", _STRIDES, [False, True, True])
    multi_grid = reading.get(f"{above}multi_grid", False)
    for part in (f"{above}zero_init_residual", f"{above}fpn"):
        reading.get(part)
    return {
        "network.name": "deeplabv3plus",
        "network.encoder": encoder,
        "network.output_stride": stride,
        "network.multi_grid": [2, 2, 4] if multi_grid and stride == 8 else None,
        "network.pretrained": True,
        "network.mean": mean if own else None,
        "network.std": std if own else None,
    }


def _loss(reading: ForeignFile, name: str) -> Keys:
    loss = reading.one_of(name, _LOSSES, "celoss")
    reading.get("criterion.kwargs.ignore_index")
    if loss != "ohem":
        return {"method.supervised_loss.name": loss}
    reading.get("criterion.threshold")
    return {
        "method.supervised_loss.name": loss,
        "method.supervised_loss.threshold": reading.number("criterion.kwargs.thresh"),
        "method.supervised_loss.min_kept": reading.number("criterion.kwargs.min_kept"),
    }


def _side(size: Any) -> Any:
    return size[0] if isinstance(size, list) and size and all(each == size[0] for each in size) else size


def _set(keys: Keys) -> Keys:
    return {key: value for key, value in keys.items() if value is not None}


def yaml_value(value: Any) -> str:
    """A value as an override gives it."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
