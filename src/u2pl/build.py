"""Configuration -> objects, and nothing else."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from u2pl.config import Config, DataConfig, MethodConfig, TrainConfig
from u2pl.data.batches import Batches, loader
from u2pl.data.cityscapes import cityscapes
from u2pl.data.files import cached
from u2pl.data.folder import folder
from u2pl.data.pascal_voc import pascal_voc
from u2pl.data.scenes import scenes
from u2pl.data.source import DataSource
from u2pl.data.transforms import LabeledTransform, UnlabeledTransform
from u2pl.errors import InputError
from u2pl.methods import U2PL, MeanTeacher, Supervised
from u2pl.methods.base import Method, PixelLoss
from u2pl.networks import deeplabv3plus, smp_network
from u2pl.pixels import ClassMix, CutMix, CutOut, Mixing, UnreliableContrast
from u2pl.pixels.contrast import Gather, default_low_rank
from u2pl.pixels.losses import OhemCrossEntropy, cross_entropy
from u2pl.structures import Batch

_READERS: dict[str, Callable[..., DataSource]] = {
    "scenes": scenes,
    "folder": folder,
    "pascal_voc": pascal_voc,
    "cityscapes": cityscapes,
}
_NETWORKS: dict[str, Callable[..., nn.Module]] = {"deeplabv3plus": deeplabv3plus, "smp": smp_network}


def build_source(data: DataConfig, *, seed: int) -> DataSource:
    """The data set. Raises InputError for a key its reader has no use for, and for whatever the reader finds wrong."""
    if data.name != "scenes" and data.root is None:
        raise InputError(f"data.root: is needed for data.name={data.name}; give the folder of the data set")
    reader = _READERS[data.name]
    options = data.model_dump(exclude={"name", "cache", "workers"}, exclude_none=True)
    if data.name != "scenes" and data.val is not None:
        options["val"] = str(data.val)  # a folder may have a number for its name
    source = reader(**_accepted(reader, options, f"data.name={data.name}", "data"), seed=seed)
    return cached(source) if data.cache else source


def build_network(config: Config, num_classes: int) -> nn.Module:
    """The network; with a projection head only where the method trains it."""
    builder = _NETWORKS[config.network.name]
    options = config.network.model_dump(exclude={"name", "embedding_dim"}, exclude_none=True)
    options = _accepted(builder, options, f"network.name={config.network.name}", "network")
    dim = config.network.embedding_dim if config.method.name == "u2pl" else None
    return builder(num_classes=num_classes, embedding_dim=dim, **options)


def build_method(
    method: MethodConfig,
    network: nn.Module,
    *,
    num_classes: int,
    embedding_dim: int,
    gather: Gather | None = None,
    processes: int = 1,
) -> Method:
    """The method around a freshly built student. ``gather`` shares the keys of so many processes."""
    loss: PixelLoss = cross_entropy
    if method.loss == "ohem":
        loss = OhemCrossEntropy(threshold=method.ohem_threshold, min_kept=method.ohem_min_kept)
    if method.name == "supervised":
        return Supervised(supervised_loss=loss)
    options: dict[str, Any] = {
        "mixing": build_mixing(method, num_classes),
        "alpha_0": method.alpha,
        "min_confidence": method.min_confidence,
        "warmup": method.warmup,
        "ramp": method.ramp,
        "max_lambda_u": math.inf if method.max_lambda_u is None else method.max_lambda_u,
        "ema_decay": method.ema_decay,
        "teacher_passes": method.teacher_passes,
        "supervised_loss": loss,
    }
    if method.name == "mean_teacher":
        return MeanTeacher(network, **options)
    return U2PL(network, contrast=build_contrast(method, num_classes, embedding_dim, gather, processes), **options)


def build_mixing(method: MethodConfig, num_classes: int) -> Mixing:
    """How strong views are mixed."""
    if method.mixing == "classmix":
        return ClassMix(num_classes)
    return CutMix() if method.mixing == "cutmix" else CutOut()


def build_contrast(
    method: MethodConfig, num_classes: int, embedding_dim: int, gather: Gather | None = None, processes: int = 1
) -> UnreliableContrast:
    """The contrastive term and its bank."""
    check_ranks(method, num_classes)
    sizes = [method.bank_size] * num_classes
    sizes[0] = method.background_bank_size or method.bank_size
    if method.keys_per_step * processes > min(sizes):
        shared = f" of each of {processes} processes" if processes > 1 else ""
        raise InputError(
            f"method.keys_per_step: {method.keys_per_step}{shared} are more than the {min(sizes)} of method.bank_size "
            "or background_bank_size; lower it"
        )
    return UnreliableContrast(
        num_classes,
        embedding_dim,
        low_rank=method.low_rank,
        high_rank=method.high_rank,
        min_probability=method.min_probability,
        anchors=method.anchors,
        negatives=method.negatives,
        temperature=method.temperature,
        bank_size=sizes,
        keys_per_step=method.keys_per_step,
        gather=gather,
    )


def check_ranks(method: MethodConfig, num_classes: int) -> None:
    """Raise InputError when no rank lies between r_l and r_h: the contrast would silently be zero."""
    low = default_low_rank(num_classes) if method.low_rank is None else method.low_rank
    high = min(20, num_classes) if method.high_rank is None else method.high_rank
    if not 0 < low < high <= num_classes:
        raise InputError(
            f"method.low_rank and method.high_rank: {low} and {high} leave no rank between them; "
            f"needed: 0 < low_rank < high_rank <= {num_classes}, the number of classes"
        )


def build_optimizer(train: TrainConfig, network: Any) -> Optimizer:
    """SGD or AdamW; the heads train at ``head_lr_factor`` times the encoder's rate."""
    groups = [
        {"params": list(network.encoder_parameters()), "lr": train.lr},
        {"params": list(network.head_parameters()), "lr": train.lr * train.head_lr_factor},
    ]
    if train.optimizer == "adamw":
        return AdamW(groups, weight_decay=train.weight_decay)
    return SGD(groups, momentum=train.momentum, weight_decay=train.weight_decay)


def build_scheduler(train: TrainConfig, optimizer: Optimizer) -> LambdaLR:
    """Poly decay, ``(1 - t/T) ** power``, after a linear rise over ``lr_warmup`` steps."""

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / (train.lr_warmup + 1))
        return rise * max(0.0, 1 - step / train.steps) ** train.power

    return LambdaLR(optimizer, factor)


def build_batches(
    config: Config, source: DataSource, *, semi_supervised: bool, rank: int, world_size: int
) -> Callable[[int], Iterable[Batch]]:
    """The batches from a step on, read ahead by worker processes."""
    train = config.train
    crop = train.crop_size if isinstance(train.crop_size, int) else (train.crop_size[0], train.crop_size[1])
    geometry: dict[str, Any] = {"crop_size": crop, "scale": tuple(train.scale_range), "flip": train.flip}
    batches = Batches(
        labeled=source.labeled,
        unlabeled=source.unlabeled if semi_supervised else None,
        labeled_transform=LabeledTransform(**geometry),
        unlabeled_transform=UnlabeledTransform(**geometry),
        batch_size=train.batch_size,
        steps=train.steps,
        seed=config.seed,
        rank=rank,
        world_size=world_size,
    )
    return lambda start: loader(batches, start=start, workers=config.data.workers)


def _accepted(builder: Callable[..., Any], options: dict[str, Any], chosen: str, section: str) -> dict[str, Any]:
    known = inspect.signature(builder).parameters
    for key in options:
        if key not in known:
            raise InputError(f"{section}.{key}: has no meaning with {chosen}; leave it out")
    return options
