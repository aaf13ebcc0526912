"""What `auto` becomes: facts of a run -> values of its keys, with the reason. All rules and their numbers are here.

A rule reads the facts, the keys that are set, and what the rules before it chose. Length, crops and learning rates
depend neither on the method nor on how many of the images are labeled: runs that these set apart are alike otherwise.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

from u2pl.build import contrasts, default_ranks, uses_ranks, uses_tags
from u2pl.choices import Choice, take
from u2pl.config import AUTO, Config, TrainConfig
from u2pl.facts import Facts
from u2pl.networks import smp_network


class Limits(NamedTuple):
    """What a device has the time and the memory for."""

    crop: int  # largest side
    passes: float  # over all training images
    fewest: int  # steps
    most: int
    bank: int  # keys of a class
    keys: int  # of them in a step
    workers: int


class Rates(NamedTuple):
    lr: float
    head_lr_factor: float
    lr_warmup: int  # steps


#: An FPN on ResNet-18 takes about 1 s for a step with 8 + 8 crops of 160 on two cores: 1 200 steps are 15 minutes.
CPU = Limits(crop=256, passes=24, fewest=1200, most=4000, bank=5000, keys=512, workers=1)
#: 80 passes and a bank of 30 000 are the paper's on PASCAL VOC.
CUDA = Limits(crop=512, passes=80, fewest=4000, most=20_000, bank=30_000, keys=1024, workers=8)
BATCH, SMALL_BATCH = 8, 4
STEP_BYTES, STEP_SHARE = 2400, 0.75  # a pixel: twice what layers of a U-Net on ResNet-50 put out; of memory
WHOLE = 0.6  # crops of more than this share of an image are resized less: they would be padding for the most part
SCALES_WHOLE, SCALES = [0.75, 1.5], [0.5, 2.0]  # those of CamVid, 160 of 180x240; the paper's
HUGE = 4  # crops a side: larger images are better scaled down
VALIDATIONS = 4  # of a run
FEW_LABELS, FEW_PER_CLASS = 100, 20  # up to, or below: as the 46 labels of CamVid
WARMUP_FEW, WARMUP, WARMUP_TRANSFORMER = 0.4, 0.25, 0.1  # few labels take longer, pretrained transformers learn fast
RAMP = 0.2  # as in every preset for few labels
HORIZON, EMA_DECAY = 0.15, (0.95, 0.999)  # share of the teacher's steps it remembers; bounds
BANK_SHARE, CACHE_SHARE = 0.01, 0.25  # of memory; the bank is saved with every checkpoint
SECONDS, SECONDS_SUPERVISED, MEASURED = 4.9e-6, 1.9e-6, "resnet18"  # a labeled pixel of a step, on two cores

#: By kind of encoder, and whether its weights are pretrained.
ADAMW = {
    ("cnn", False): Rates(1e-3, 1.0, 0),  # CamVid
    ("cnn", True): Rates(1e-4, 10.0, 0),  # VOC animals; SGD at 0.01 failed there
    ("mit", False): Rates(1e-4, 1.0, 200),  # not measured
    ("mit", True): Rates(6e-5, 10.0, 200),  # SegFormer's (arXiv 2105.15203)
    ("vit", False): Rates(1e-4, 1.0, 200),  # not measured
    ("vit", True): Rates(5e-6, 40.0, 100),  # UniMatch V2's for DINOv2 (arXiv 2410.10777)
}
SGD = {False: Rates(0.01, 1.0, 0), True: Rates(0.001, 10.0, 0)}  # the paper's on Cityscapes, and on PASCAL VOC
WEIGHT_DECAY = {"adamw": 0.01, "sgd": 1e-4}
OF_SMP = {"name", *inspect.signature(smp_network).parameters} - {"output_stride"}  # which few architectures have
KINDS = {"mit_": "mit", **dict.fromkeys(("dinov2_", "tu-vit_", "tu-deit", "tu-beit", "tu-eva"), "vit")}
ARCHITECTURES = {"cnn": "FPN", "mit": "Segformer", "vit": "DPT"}  # CamVid, 400 steps: FPN 41.9, U-Net 38.4


def fit(config: Config, facts: Facts) -> tuple[Config, tuple[Choice, ...]]:
    """``config`` with a value in place of every `auto`, and what was chosen. Keys that are set stay as they are."""
    choices = []
    for rule in RULES:
        config, choice = take(config, rule(config, facts))
        choices += [choice] if choice.values else []
    return config, tuple(choices)


def steps_of_epochs(train: TrainConfig, images: int) -> int:
    """Optimiser steps of ``epochs`` passes over so many images."""
    return max(1, round((train.epochs or 0) * images / (train.batch_size * train.devices * train.nodes)))


def loading(config: Config, facts: Facts) -> Choice:
    """Whether decoded images stay in memory; every loader process keeps its own."""
    workers = config.data.workers
    if workers == AUTO:
        workers = max(1, min(_limits(facts).workers, facts.cores // facts.processes - 1))
    needed = 4 * facts.height * facts.width * (facts.images + facts.val) * max(1, workers) * facts.processes
    reason = f"decoded images take about {_size(needed)} of this machine's {_size(facts.host_memory)}"
    return Choice("data", {"cache": needed <= CACHE_SHARE * facts.host_memory, "workers": workers}, reason)


def network(config: Config, facts: Facts) -> Choice:
    """The architecture that suits the encoder; DeepLabv3+ where a key is set that it alone has."""
    chosen, kind = config.network, _kind(config)
    its_own = [key for key in chosen.model_dump(exclude_defaults=True) if key not in OF_SMP]
    name = chosen.name
    if name == AUTO:
        name = "deeplabv3plus" if its_own and chosen.architecture in (AUTO, None) else "smp"
    if name == "deeplabv3plus":
        return Choice("network", {"name": name, "architecture": None}, f"{', '.join(its_own) or 'name'} is set")
    what = {"cnn": "convolutional", "mit": "MiT", "vit": "vision transformer"}[kind]
    values = {"name": name, "architecture": ARCHITECTURES[kind]}
    return Choice("network", values, f"encoder {chosen.encoder} ({what})")


def crops(config: Config, facts: Facts) -> Choice:
    """As much of an image as the device has time for, in whole strides of the encoder."""
    encoder, side, most = config.network.encoder, min(facts.height, facts.width), _limits(facts).crop
    stride = 28 if "dinov2" in encoder or "patch14" in encoder else 32
    fitting = max(stride, min(side, most) // stride * stride)
    crop = fitting if config.train.crop_size == AUTO else min(_crop(config.train))
    reason = f"images of {facts.height}x{facts.width} (height x width, median), at most {most} on {facts.device}"
    if side > HUGE * crop and config.data.scale is None and config.data.name not in ("scenes", "domain"):
        reason += f"; data.scale={2 * crop / side:.1g} would show the network more of each"
    scales = SCALES_WHOLE if crop > WHOLE * side else SCALES
    return Choice("train", {"crop_size": fitting, "scale_range": list(scales)}, reason)


def batch(config: Config, facts: Facts) -> Choice:
    """As for a method that sees as many unlabeled crops, whichever it is."""
    height, width = _crop(config.train)
    needed = 2 * BATCH * height * width * STEP_BYTES
    size = BATCH if needed <= STEP_SHARE * facts.memory else SMALL_BATCH
    reason = f"{BATCH} and as many unlabeled crops take up to {_size(needed)} of {_size(facts.memory)}"
    return Choice("train", {"batch_size": size}, reason)


def schedule(config: Config, facts: Facts) -> Choice:
    """When the teacher begins."""
    few = facts.labeled <= FEW_LABELS or facts.labeled < FEW_PER_CLASS * facts.classes
    reason = f"{facts.labeled} labels for {facts.classes} classes are {'few' if few else 'not few'}"
    warmup = WARMUP_FEW if few else WARMUP
    if _kind(config) != "cnn" and _pretrained(config):
        warmup = WARMUP_TRANSFORMER
        reason += ", but the encoder is a pretrained transformer"
    ramp = round(min(RAMP, 1 - (warmup if config.method.warmup == AUTO else config.method.warmup)), 4)
    return Choice("method", {"warmup": warmup, "ramp": ramp}, reason, used=_has_teacher(config))


def views(config: Config, facts: Facts) -> Choice:
    """Few labels, and those of another domain, are pasted onto images without; tags cannot be pasted."""
    across, few, tags = config.data.name == "domain", facts.labeled <= FEW_LABELS, uses_tags(config.method)
    reason = f"{facts.labeled} labels are {'few' if few else 'enough'}"
    if across:
        reason = "labels are of another domain"
    values = {"mixing": "cutmix", "jitter": "unlabeled"}
    if tags:
        reason = "tags cannot be pasted"
    elif few or across:
        reason += ": pasted onto images without any, they stay true"
        values = {"mixing": "cross_domain", "jitter": "mixed"}
    return Choice("method", values, reason, used=config.method.name != "supervised")


def labels(config: Config, facts: Facts) -> Choice:
    """Whether labels of rare classes weigh more."""
    tags = uses_tags(config.method)
    reason = "seeds are not labels" if tags else "rare classes are otherwise lost"
    return Choice("method", {"loss": "cross_entropy" if tags else "balanced"}, reason)


def pseudo_labels(config: Config, facts: Facts) -> Choice:
    """Whether pseudo-labels of rare classes weigh more."""
    values, reason = {"unsupervised_loss": "cross_entropy"}, "a pretrained encoder would see rare classes everywhere"
    if uses_tags(config.method):
        reason = "as for labels"
    elif config.method.symmetric > 0:
        reason = "method.symmetric is set"
    elif not _pretrained(config):
        values, reason = {"unsupervised_loss": "balanced"}, "from scratch, rare classes are otherwise lost"
    return Choice("method", values, reason, used=_has_teacher(config))


def colours(config: Config, facts: Facts) -> Choice:
    """Whether labeled images are jittered, too."""
    pretrained = _pretrained(config)
    reason = "a pretrained encoder knows light of all kinds" if pretrained else "few images show few kinds of light"
    return Choice("train", {"jitter": not pretrained}, reason)


def length(config: Config, facts: Facts) -> Choice:
    """So many passes over all training images, labeled or not, within what is worthwhile and what there is time for."""
    train, limits, size = config.train, _limits(facts), config.train.batch_size * facts.processes
    passes = math.ceil(limits.passes * facts.images / size / 100) * 100
    chosen = train.steps == AUTO and train.epochs is None
    steps = max(limits.fewest, min(passes, limits.most)) if chosen else _steps(config, facts)
    reason = f"{steps} steps"
    if chosen:
        reason = f"{limits.passes:g} passes over {facts.images} images in batches of {size}, but {limits.fewest} to "
        reason += f"{limits.most} steps on {facts.device}"
    detail = []
    if facts.labeled:
        detail.append(f"each of {facts.labeled} labels is seen about {steps * size / facts.labeled:.0f} times")
    if facts.device == "cpu" and config.network.encoder == MEASURED:
        detail.append(f"roughly {_minutes(config, facts, steps):.0f} min on {facts.cores} cores")
    values = {"steps": steps, "eval_every": max(1, steps // VALIDATIONS)}
    return Choice("train", values, reason, detail="; ".join(detail))


def optimizer(config: Config, facts: Facts) -> Choice:
    """Rates by what the encoder is, and where its weights come from."""
    kind, pretrained = _kind(config), _pretrained(config)
    name = "adamw" if config.train.optimizer == AUTO else config.train.optimizer
    rates = ADAMW[kind, pretrained] if name == "adamw" else SGD[pretrained]
    values = {"optimizer": name, **rates._asdict(), "weight_decay": WEIGHT_DECAY[name]}
    values["lr_warmup"] = min(rates.lr_warmup, _steps(config, facts) // 10)
    what = "convolutional encoder" if kind == "cnn" else "transformer"
    return Choice("train", values, f"{what} {'with pretrained weights' if pretrained else 'from scratch'}")


def teacher(config: Config, facts: Facts) -> Choice:
    """An average that has forgotten what is no longer true of its student."""
    steps = (1 - config.method.warmup) * _steps(config, facts)
    least, most = EMA_DECAY
    decay = max(least, min(1 - 1 / max(1.0, HORIZON * steps), most))
    decay = math.floor(1000 * decay + 1e-6) / 1000
    reason = f"an average over about {1 / (1 - decay):.0f} steps, of {steps:.0f} with a teacher"
    return Choice("method", {"ema_decay": decay}, reason, used=_has_teacher(config))


def ranks(config: Config, facts: Facts) -> Choice:
    """Those of the contrast for so many classes."""
    low, high = default_ranks(facts.classes)
    values = {"low_rank": low, "high_rank": high}
    return Choice("method", values, f"{facts.classes} classes", used=uses_ranks(config.method))


def bank(config: Config, facts: Facts) -> Choice:
    """Queues within memory, of which a step replaces a part."""
    method, limits, row = config.method, _limits(facts), 4 * config.network.embedding_dim * facts.classes
    size = method.bank_size
    if size == AUTO:
        pushed = 1 if method.keys_per_step == AUTO else method.keys_per_step * facts.processes
        size = max(100, pushed, min(limits.bank, int(BANK_SHARE * facts.memory / row) // 100 * 100))
    smallest = min(size, method.background_bank_size or size)
    values = {"bank_size": size, "keys_per_step": max(1, min(limits.keys, smallest // (2 * facts.processes)))}
    reason = f"{facts.classes} classes take {_size(size * row)} of {_size(facts.memory)}"
    return Choice("method", values, reason, used=contrasts(method))


#: In the order in which one builds on another.
RULES: tuple[Callable[[Config, Facts], Choice], ...] = (
    *(
        loading,
        network,
        crops,
        colours,
        batch,
        schedule,
        labels,
        views,
        pseudo_labels,
        length,
        optimizer,
        teacher,
        ranks,
        bank,
    ),
)


def _limits(facts: Facts) -> Limits:
    return CUDA if facts.device == "cuda" else CPU


def _kind(config: Config) -> str:
    """cnn, mit or vit."""
    encoder = config.network.encoder
    return next((kind for start, kind in KINDS.items() if encoder.startswith(start)), "cnn")


def _pretrained(config: Config) -> bool:
    return config.network.pretrained or config.network.weights is not None


def _has_teacher(config: Config) -> bool:
    return config.method.name not in ("supervised", "fixmatch", "unimatch")


def _crop(train: TrainConfig) -> tuple[int, int]:
    crop = train.crop_size
    return (crop, crop) if isinstance(crop, int) else (crop[0], crop[1])


def _steps(config: Config, facts: Facts) -> int:
    train = config.train
    return train.steps if train.epochs is None else steps_of_epochs(train, facts.unlabeled or facts.labeled)


def _minutes(config: Config, facts: Facts, steps: int) -> float:
    height, width = _crop(config.train)
    warmup = 1.0 if config.method.name == "supervised" else config.method.warmup
    pixel = warmup * SECONDS_SUPERVISED + (1 - warmup) * SECONDS
    return steps * config.train.batch_size * height * width * pixel / 60 * 2 / facts.cores


def _size(count: float) -> str:
    """Bytes, for a person."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
