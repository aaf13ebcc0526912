"""Configuration -> objects, and nothing else."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from u2pl.config import Config, DataConfig, EvaluationConfig, MethodConfig, TrainConfig
from u2pl.data.batches import Batches, loader, step_seed
from u2pl.data.cityscapes import cityscapes
from u2pl.data.files import cached
from u2pl.data.folder import folder
from u2pl.data.pascal_voc import pascal_voc
from u2pl.data.scenes import scenes
from u2pl.data.source import DataSource
from u2pl.data.transforms import LabeledTransform, UnlabeledTransform
from u2pl.engine.diagnose import Diagnosis
from u2pl.engine.inference import Inference, inference
from u2pl.engine.parameter_groups import parameter_groups
from u2pl.errors import InputError
from u2pl.methods import U2PL, FixMatch, MeanTeacher, Supervised, UniMatch
from u2pl.methods.base import Method, PixelLoss
from u2pl.networks import deeplabv3plus, smp_network
from u2pl.pixels import (
    AdaptiveCopyPaste,
    AdaptiveCutMix,
    ClassConfidence,
    ClassMix,
    CutMix,
    CutOut,
    Mixing,
    NoMixing,
    UnreliableContrast,
)
from u2pl.pixels.contrast import Gather, default_low_rank
from u2pl.pixels.losses import OhemCrossEntropy, cross_entropy
from u2pl.structures import Batch

_READERS: dict[str, Callable[..., DataSource]] = {
    "scenes": scenes,
    "folder": folder,
    "pascal_voc": pascal_voc,
    "cityscapes": cityscapes,
}
_DIAGNOSIS_STREAM = 5  # its batches are not those of a step
_DIAGNOSED = 4  # batches of each process
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
    dim = config.network.embedding_dim if contrasts(config.method) else None
    return builder(num_classes=num_classes, embedding_dim=dim, **options)


def contrasts(method: MethodConfig) -> bool:
    """Whether the method has a contrastive term, and so trains embeddings."""
    return method.name == "u2pl" and method.contrast


def build_method(
    method: MethodConfig,
    network: nn.Module,
    *,
    num_classes: int,
    embedding_dim: int,
    gather: Gather | None = None,
    total: Callable[[Tensor], Tensor] | None = None,
    processes: int = 1,
) -> Method:
    """The method around a freshly built student. ``gather`` shares the keys of so many processes, ``total`` sums."""
    loss: PixelLoss = cross_entropy
    if method.loss == "ohem":
        loss = OhemCrossEntropy(threshold=method.ohem_threshold, min_kept=method.ohem_min_kept)
    if method.name == "supervised":
        return Supervised(supervised_loss=loss)
    mixing = build_mixing(method, num_classes, total)
    if method.name in ("fixmatch", "unimatch"):
        if isinstance(mixing, AdaptiveCutMix):
            raise InputError(f"method.mixing: ael needs mean_teacher or u2pl, not {method.name}; use cutmix")
        consistency = FixMatch if method.name == "fixmatch" else UniMatch
        return consistency(threshold=method.threshold, mixing=mixing, supervised_loss=loss)
    options: dict[str, Any] = {
        "mixing": mixing,
        "copy_paste": AdaptiveCopyPaste(mixing.confidence) if isinstance(mixing, AdaptiveCutMix) else None,
        "alpha_0": method.alpha,
        "dynamic_partition": method.dynamic_partition,
        "min_confidence": method.min_confidence,
        "warmup": method.warmup,
        "ramp": method.ramp,
        "max_lambda_u": math.inf if method.max_lambda_u is None else method.max_lambda_u,
        "ema_decay": method.ema_decay,
        "feature_dropout": method.feature_dropout,
        "negatives_from": method.negatives_from,
        "teacher_passes": method.teacher_passes,
        "supervised_loss": loss,
    }
    if not contrasts(method):
        return MeanTeacher(network, **options)
    return U2PL(network, contrast=build_contrast(method, num_classes, embedding_dim, gather, processes), **options)


def build_mixing(method: MethodConfig, num_classes: int, total: Callable[[Tensor], Tensor] | None = None) -> Mixing:
    """How strong views are mixed."""
    if method.mixing == "ael":
        return AdaptiveCutMix(ClassConfidence(num_classes, reduce=total))
    if method.mixing == "classmix":
        return ClassMix(num_classes)
    return {"cutmix": CutMix, "cutout": CutOut, "none": NoMixing}[method.mixing]()


def build_contrast(
    method: MethodConfig, num_classes: int, embedding_dim: int, gather: Gather | None = None, processes: int = 1
) -> UnreliableContrast:
    """The contrastive term and its bank."""
    low_rank, high_rank = ranks(method, num_classes)
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
        low_rank=low_rank,
        high_rank=high_rank,
        min_probability=method.min_probability,
        anchors=method.anchors,
        negatives=method.negatives,
        temperature=method.temperature,
        bank_size=sizes,
        keys_per_step=method.keys_per_step,
        gather=gather,
        keep_truth=method.diagnose,
    )


def ranks(method: MethodConfig, num_classes: int) -> tuple[int, int]:
    """r_l and r_h. Raises InputError when no rank lies between them: the contrast would silently be zero."""
    low, high = 1, num_classes
    if method.rank_threshold:
        low = default_low_rank(num_classes) if method.low_rank is None else method.low_rank
        high = min(20, num_classes) if method.high_rank is None else method.high_rank
    if not 0 < low < high <= num_classes:
        raise InputError(
            f"method.low_rank and method.high_rank: {low} and {high} leave no rank between them; "
            f"needed: 0 < low_rank < high_rank <= {num_classes}, the number of classes"
        )
    return low, high


def build_optimizer(train: TrainConfig, network: Any) -> Optimizer:
    """SGD or AdamW, with the rates of :func:`u2pl.engine.parameter_groups.parameter_groups`."""
    groups = parameter_groups(
        network,
        lr=train.lr,
        head_lr_factor=train.head_lr_factor,
        weight_decay=train.weight_decay,
        layer_decay=train.layer_decay,
    )
    return AdamW(groups) if train.optimizer == "adamw" else SGD(groups, momentum=train.momentum)


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
    batches = Batches(
        labeled=source.labeled,
        unlabeled=source.unlabeled if semi_supervised else None,
        **_crops(config),
        steps=config.train.steps,
        seed=config.seed,
        rank=rank,
        world_size=world_size,
        truth=config.method.diagnose and contrasts(config.method),  # of the keys in the bank
    )
    return lambda start: loader(batches, start=start, workers=config.data.workers)


def build_diagnosis(
    config: Config, source: DataSource, *, semi_supervised: bool, rank: int, world_size: int
) -> Diagnosis:
    """Batches cropped as in training, of unlabeled images whose true classes are known, as far as there are any."""
    known = [sample for sample in source.unlabeled if sample.has_mask] or source.unlabeled
    batches = Batches(
        labeled=source.labeled,
        unlabeled=known if semi_supervised else None,
        **_crops(config),
        steps=_DIAGNOSED,
        seed=step_seed(config.seed, _DIAGNOSIS_STREAM),
        rank=rank,
        world_size=world_size,
        truth=True,
    )
    return Diagnosis(classes=source.classes, batches=lambda: loader(batches, workers=config.data.workers))


def _crops(config: Config) -> dict[str, Any]:
    train, method = config.train, config.method
    crop = train.crop_size if isinstance(train.crop_size, int) else (train.crop_size[0], train.crop_size[1])
    geometry: dict[str, Any] = {"crop_size": crop, "scale": tuple(train.scale_range), "flip": train.flip}
    strong: dict[str, Any] = {"strong_views": strong_views(method), "photometric": method.strong_view}
    return {
        "labeled_transform": LabeledTransform(**geometry),
        "unlabeled_transform": UnlabeledTransform(**geometry, **strong),
        "batch_size": train.batch_size,
    }


def strong_views(method: MethodConfig) -> int:
    """Strong views of each unlabeled image: UniMatch is defined by two."""
    return {"fixmatch": 1, "unimatch": 2}.get(method.name, method.views)


def build_inference(evaluation: EvaluationConfig) -> Inference:
    """How a trained network sees a whole image."""
    return partial(inference, **evaluation.model_dump())


def _accepted(builder: Callable[..., Any], options: dict[str, Any], chosen: str, section: str) -> dict[str, Any]:
    known = inspect.signature(builder).parameters
    for key in options:
        if key not in known:
            raise InputError(f"{section}.{key}: has no meaning with {chosen}; leave it out")
    return options
