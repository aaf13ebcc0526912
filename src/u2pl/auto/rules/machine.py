"""Rules by time and memory of the machine: loading, crops, batches, length, compilation, and the bank."""

from __future__ import annotations

import math
from typing import NamedTuple

from u2pl.auto.choices import Choice
from u2pl.auto.facts import Facts
from u2pl.auto.rules.reading import crop_of, size_text, steps_of
from u2pl.config.fields import AUTO
from u2pl.config.schema import Config


class Limits(NamedTuple):
    """Limits of a device in time and memory."""

    crop: int  # largest side
    passes: float  # over all training images
    fewest: int  # steps
    most: int
    bank: int  # keys per class
    keys: int  # new keys per class and step
    workers: int


#: An FPN on ResNet-18 takes about 1 s per step with 8 + 8 crops of 160 on two cores: 1 200 steps take 15 minutes.
CPU = Limits(crop=256, passes=24, fewest=1200, most=4000, bank=5000, keys=512, workers=1)
#: 80 passes and a bank of 30 000 are the paper's values for PASCAL VOC.
CUDA = Limits(crop=512, passes=80, fewest=4000, most=20_000, bank=30_000, keys=1024, workers=8)
BATCH, SMALL_BATCH = 8, 4
STEP_BYTES, STEP_SHARE = 2400, 0.75  # per pixel: twice the layer outputs of a U-Net on ResNet-50; share of memory
WHOLE = 0.6  # larger crops, as a share of the image, are resized less: they would be mostly padding
SCALES_WHOLE, SCALES = [0.75, 1.5], [0.5, 2.0]  # from CamVid, 160 of 180x240; the paper's
SCALES_TAGS = [0.75, 1.0]  # tags are of the whole image, not of the crop; from the scenes of objects
HUGE = 4  # crops per side: larger images should be scaled down
REPAID = 1000  # steps on a GPU, which repay some minutes of compilation
VALIDATIONS = 4  # per run
BANK_SHARE, CACHE_SHARE = 0.01, 0.25  # shares of memory; every checkpoint contains the bank
SECONDS, SECONDS_SUPERVISED, MEASURED = 4.9e-6, 1.9e-6, "resnet18"  # per labeled pixel of a step, on two cores


def loading(config: Config, facts: Facts) -> Choice:
    """Whether decoded images stay in memory, which the loader processes of a training process share.

    On a CPU, crops of such images cost less than the core that a loader process takes from the network: steps were 7 %
    faster without one.
    """
    needed = 4 * facts.height * facts.width * (facts.images + facts.val) * facts.processes
    because = f"decoded images take {size_text(needed)} of {size_text(facts.host_memory)}"
    fits = needed <= CACHE_SHARE * facts.host_memory
    kept = fits if config.data.cache == AUTO else config.data.cache
    free = max(1, facts.cores // facts.processes - 1)
    workers = 0 if kept and facts.device == "cpu" else min(limits_of(facts).workers, free)
    detail = f"{facts.cores} cores; images stay in memory where they take at most a quarter of it"
    return Choice({"data.cache": fits, "data.workers": workers}, because, detail=detail)


def crops(config: Config, facts: Facts) -> Choice:
    """The largest crops that the device has time for, in multiples of the encoder's stride."""
    encoder, side, most = config.network.encoder, min(facts.height, facts.width), limits_of(facts).crop
    stride = 28 if "dinov2" in encoder or "patch14" in encoder else 32
    fitting = max(stride, min(side, most) // stride * stride)
    crop = fitting if config.train.crop_size == AUTO else min(crop_of(config.train))
    because = f"images of {facts.height}x{facts.width}, at most {most} on {facts.device}"
    detail = "height x width, median"
    tags, drawn = config.data.tags is not None, config.data.name in ("scenes", "domain")
    if side > (1 / WHOLE if tags else HUGE) * crop and config.data.scale is None and not drawn:
        why = ", as tags are of whole images" if tags else ""
        detail += f"; data.scale={(1 if tags else 2) * crop / side:.1g} would show the network more of each{why}"
    scales = SCALES_TAGS if tags else SCALES_WHOLE if crop > WHOLE * side else SCALES
    return Choice({"train.crop_size": fitting, "train.scale_range": list(scales)}, because, detail=detail)


def batch(config: Config, facts: Facts) -> Choice:
    """One batch size for all methods: it leaves memory for as many unlabeled crops."""
    height, width = crop_of(config.train)
    needed = 2 * BATCH * height * width * STEP_BYTES
    size = BATCH if needed <= STEP_SHARE * facts.memory else SMALL_BATCH
    because = f"{BATCH} + {BATCH} crops take up to {size_text(needed)} of {size_text(facts.memory)}"
    return Choice({"train.batch_size": size}, because)


def length(config: Config, facts: Facts) -> Choice:
    """A number of passes over all training images, labeled or not, within limits of use and time."""
    train, limits, size = config.train, limits_of(facts), config.train.batch_size * facts.processes
    passes = math.ceil(limits.passes * facts.images / size / 100) * 100
    chosen = train.steps == AUTO and train.epochs is None
    steps = max(limits.fewest, min(passes, limits.most)) if chosen else steps_of(config, facts)
    because, detail = f"{VALIDATIONS} validations in {steps} steps", []
    if chosen:
        because = f"{limits.passes:g} passes over {facts.images} images; {limits.fewest} to {limits.most}"
        detail.append(f"in batches of {size}, on {facts.device}")
    if facts.labeled:
        detail.append(f"each of {facts.labeled} labels is seen about {steps * size / facts.labeled:.0f} times")
    if facts.device == "cpu" and config.network.encoder == MEASURED:
        detail.append(f"roughly {_minutes(config, facts, steps):.0f} min on {facts.cores} cores")
    values = {"train.steps": steps, "train.eval_every": max(1, steps // VALIDATIONS)}
    return Choice(values, because, detail="; ".join(detail))


def bank(config: Config, facts: Facts) -> Choice:
    """Queues that fit in memory. A step replaces only a part of them."""
    limits, row = limits_of(facts), 4 * config.network.embedding_dim * facts.classes
    contrast = config.method.contrast
    if contrast is None:
        return Choice({}, "there is no contrast", used=False)
    size = contrast.bank_size
    if size == AUTO:
        pushed = 1 if contrast.keys_per_step == AUTO else contrast.keys_per_step * facts.processes
        size = max(100, pushed, min(limits.bank, int(BANK_SHARE * facts.memory / row) // 100 * 100))
    smallest = min(size, contrast.background_bank_size or size)
    keys = max(1, min(limits.keys, smallest // (2 * facts.processes)))
    because = f"{facts.classes} classes take {size_text(size * row)} of {size_text(facts.memory)}"
    values = {"method.contrast.bank_size": size, "method.contrast.keys_per_step": keys}
    return Choice(values, because, used=config.method.trains_embeddings)


def compiling(config: Config, facts: Facts) -> Choice:
    """Whether networks are compiled: it takes minutes once, and a short run does not win them back."""
    steps = steps_of(config, facts)
    if facts.device != "cuda":
        return Choice({"train.compile": False}, f"on {facts.device} it gains little")
    if facts.processes > 1:
        return Choice({"train.compile": False}, "it is not measured with several processes")
    if facts.uncompilable is not None:
        return Choice({"train.compile": False}, facts.uncompilable)
    enough = steps >= REPAID
    because = f"{steps} steps {'repay' if enough else 'do not repay'} it"
    return Choice({"train.compile": enough}, because, detail=f"from {REPAID} steps on a GPU")


def limits_of(facts: Facts) -> Limits:
    return CUDA if facts.device == "cuda" else CPU


def _minutes(config: Config, facts: Facts, steps: int) -> float:
    height, width = crop_of(config.train)
    warmup = 1.0 if config.method.name == "supervised" else config.method.schedule.warmup
    pixel = warmup * SECONDS_SUPERVISED + (1 - warmup) * SECONDS
    return steps * config.train.batch_size * height * width * pixel / 60 * 2 / facts.cores
