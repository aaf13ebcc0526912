"""Configuration -> batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from u2pl.config.schema import Config, DataConfig, MethodConfig
from u2pl.data.batches import Batches, step_seed
from u2pl.data.loading import loader
from u2pl.data.rare_classes import DrawsByClass, RareClassesOfDomains, RareClassSampling, pixel_counts
from u2pl.data.source import DataSource
from u2pl.data.transforms import LabeledTransform, UnlabeledTransform
from u2pl.engine.diagnose import Diagnosis
from u2pl.pixels.views import views_of
from u2pl.structures import Crops

_DIAGNOSIS_STREAM = 5  # keeps its batches apart from those of training
_DIAGNOSED = 4  # batches of each process
_MANY = 2000  # from this number of masks on, progress is reported


def build_rare_classes(
    data: DataConfig, source: DataSource, *, say: Callable[[str], None] | None = None
) -> DrawsByClass | None:
    """The sampler that draws labeled images by class; None if it is off. Reads every labeled mask."""
    if data.rare_class_sampling is None or not source.labeled:
        return None
    counts = pixel_counts(source.labeled, _masks_read("rare_class_sampling", say))
    options = dict(data.rare_class_sampling)
    if not source.target_labeled:
        return RareClassSampling(counts, **options)
    images = len(counts) - source.target_labeled
    parts = (RareClassSampling(part, **options) for part in (counts[:images], counts[images:]))
    return RareClassesOfDomains(*parts, images=images)


def build_class_share(
    method: MethodConfig, source: DataSource, *, say: Callable[[str], None] | None = None
) -> Tensor | None:
    """(C,) float32: the share of each class among labeled pixels; None if unused. Reads every labeled mask.

    With labels of two domains, each of them counts half, as half of a batch is drawn from each.
    """
    if not method.balances:
        return None
    counts = pixel_counts(source.labeled, _masks_read("method.supervised_loss.name=balanced", say))
    images = len(counts) - source.target_labeled
    parts = (counts[:images], counts[images:]) if 0 < images < len(counts) else (counts,)
    totals = [part.sum(axis=0) / (len(part) if len(parts) > 1 else 1) for part in parts]
    pixels = torch.from_numpy(sum(totals)[: len(source.classes)])
    return (pixels / pixels.sum().clamp(min=1e-6)).float()


def _masks_read(name: str, say: Callable[[str], None] | None) -> Callable[[int, int], None]:
    """A progress callback that reports how many masks are read, if there are many."""

    def progress(done: int, total: int) -> None:
        if say is not None and total >= _MANY and done % (total // 10) == 0:
            say(f"{name}: {done} of {total} masks read")

    return progress


def build_batches(
    config: Config,
    source: DataSource,
    *,
    semi_supervised: bool,
    rank: int,
    world_size: int,
    rare_classes: DrawsByClass | None = None,
    priors: Mapping[str, Tensor] | None = None,
    device: torch.device | None = None,
) -> Callable[[int], Iterable[Crops]]:
    """The crops from a step on, read ahead by worker processes.

    Args:
        device: where the batches will be made. Crops for CUDA are put into pinned memory, from where they are copied
            without waiting.
        rare_classes: the sampler, if it exists already.
        priors: image priors of unlabeled images, by name.
    """
    batches = Batches(
        **_in_common(config, source, rare_classes),
        unlabeled=source.unlabeled if semi_supervised else None,
        steps=config.train.steps,
        seed=config.seed,
        rank=rank,
        world_size=world_size,
        priors=priors,
        truth=config.method.diagnose and config.method.trains_embeddings,  # true classes of the keys in the bank
    )
    workers, timeout = config.data.workers, config.data.timeout
    pinned = device is not None and device.type == "cuda"
    return lambda start: loader(batches, start=start, workers=workers, timeout=timeout, pin_memory=pinned)


def build_diagnosis(
    config: Config,
    source: DataSource,
    *,
    semi_supervised: bool,
    rank: int,
    world_size: int,
    rare_classes: DrawsByClass | None = None,
    priors: Mapping[str, Tensor] | None = None,
) -> Diagnosis:
    """Data of a diagnosis: batches cropped as in training, with unlabeled images that have a mask if there are any."""
    known = [sample for sample in source.unlabeled if sample.has_mask] or source.unlabeled
    batches = Batches(
        **_in_common(config, source, rare_classes),
        unlabeled=known if semi_supervised else None,
        steps=_DIAGNOSED,
        seed=step_seed(config.seed, _DIAGNOSIS_STREAM),
        rank=rank,
        world_size=world_size,
        priors=priors,
        truth=True,
    )
    workers, timeout = config.data.workers, config.data.timeout
    return Diagnosis(
        classes=source.classes, batches=lambda: loader(batches, workers=workers, timeout=timeout), views=views_of
    )


def _in_common(config: Config, source: DataSource, rare_classes: DrawsByClass | None) -> dict[str, Any]:
    """Arguments that batches for training and for a diagnosis share: labels, tags and crops."""
    return {
        "labeled": source.labeled,
        "target_labeled": source.target_labeled,
        "pseudo": source.pseudo,
        "pseudo_share": 0.5 if config.data.pseudo_share is None else config.data.pseudo_share,
        "tag_classes": len(source.classes) if config.method.kind.uses_tags else None,
        "rare_classes": rare_classes or build_rare_classes(config.data, source),
        **_crops(config),
    }


def _crops(config: Config) -> dict[str, Any]:
    train, method = config.train, config.method
    crop = train.crop_size if isinstance(train.crop_size, int) else (train.crop_size[0], train.crop_size[1])
    geometry: dict[str, Any] = {"crop_size": crop, "scale": tuple(train.scale_range), "flip": train.flip}
    photometric = method.strong_views.jitter == "unlabeled"
    strong: dict[str, Any] = {"strong_views": method.strong_views_of_an_image, "photometric": photometric}
    return {
        "labeled_transform": LabeledTransform(**geometry, jitter=train.jitter),
        "unlabeled_transform": UnlabeledTransform(**geometry, **strong),
        "batch_size": train.batch_size,
    }
