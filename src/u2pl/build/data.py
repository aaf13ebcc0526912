"""Configuration -> data sets and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from u2pl.config.part import accepted
from u2pl.config.schema import Config, DataConfig, MethodConfig, SourceConfig, TargetConfig
from u2pl.data.batches import Batches, step_seed
from u2pl.data.class_mapping import read_mapping
from u2pl.data.files import cached
from u2pl.data.loading import loader
from u2pl.data.pseudo_masks import with_pseudo_masks
from u2pl.data.rare_classes import RareClassSampling, pixel_counts
from u2pl.data.readers import READERS
from u2pl.data.readers.domain import domain
from u2pl.data.source import DataSource
from u2pl.data.transforms import LabeledTransform, UnlabeledTransform
from u2pl.engine.diagnose import Diagnosis
from u2pl.errors import InputError
from u2pl.paths import is_file, usable
from u2pl.pixels.views import views_of
from u2pl.structures import Crops

_DIAGNOSIS_STREAM = 5  # keeps its batches apart from those of training
_DIAGNOSED = 4  # batches of each process
_MANY = 2000  # from this number of masks on, progress is reported


def build_source(data: DataConfig, *, seed: int) -> DataSource:
    """The data set. Raises InputError for a key that its reader does not use, and for errors of the reader."""
    apart = {"cache", "workers", "timeout", "rare_class_sampling", "pseudo_masks", "pseudo_share"}
    options = {key: value for key, value in data if key not in apart and value is not None}
    if data.name == "domain":
        source = read_domains(**accepted(read_domains, options, "data.name=domain", "data"), seed=seed)
    else:
        source = _read(options, "data", seed)
    if data.pseudo_masks is not None:
        source = with_pseudo_masks(source, usable(data.pseudo_masks, "data.pseudo_masks:"))
    return cached(source) if data.cache is True else source


def _read(options: dict[str, Any], section: str, seed: int) -> DataSource:
    """The data set of a section, given its keys that are set."""
    name = options["name"]
    if name != "scenes" and "root" not in options:
        raise InputError(f"{section}.root: is needed for {section}.name={name}; give the folder of the data set")
    if name != "scenes" and "val" in options:
        options["val"] = str(options["val"])  # a folder's name may be a number
    keys = {key: value for key, value in options.items() if key != "name"}
    return READERS[name](**accepted(READERS[name], keys, f"{section}.name={name}", section), seed=seed)


def read_domains(
    *,
    name: str = "domain",
    source: SourceConfig | None = None,
    target: TargetConfig | None = None,
    upper_bound: bool = False,
    seed: int,
) -> DataSource:
    """Source and target as one data set. Without ``upper_bound``, training masks of the target are not read."""
    if source is None or target is None:
        key = "data.source" if source is None else "data.target"
        raise InputError(f"{key}: is needed for data.name={name}; give {key}.root and, unless folder, {key}.name")
    told = target.model_dump(exclude_none=True)
    if not upper_bound and "labeled" in told:
        raise InputError(
            "data.target.labeled: labels of the target train only with data.upper_bound=true; leave it out"
        )
    labels = _part(source.model_dump(exclude_none=True, exclude={"mapping"}), "data.source", seed)
    images = _part(told if upper_bound else {**told, "labeled": False}, "data.target", seed)
    mapping = None
    if source.mapping is not None:
        file = _find_mapping(source.mapping, source.root, target.root)
        mapping = read_mapping(file, labels.classes, images.classes)
    return domain(source=labels, target=images, mapping=mapping, upper_bound=upper_bound)


def _part(options: dict[str, Any], section: str, seed: int) -> DataSource:
    try:
        return _read(options, section, seed)
    except InputError as error:  # name the section
        message = str(error)
        if message.startswith(f"{section}."):
            raise
        key = message.removeprefix("data.")
        raise InputError(f"{section}: {message}" if key == message else f"{section}.{key}") from error


def _find_mapping(path: str, *roots: str | None) -> Path:
    """The mapping file, by its path from the working directory or from either data set."""
    places = [usable(path), *(usable(root) / path for root in roots if root is not None)]
    found = next((place for place in places if is_file(place)), None)
    if found is None:
        raise InputError(
            f"data.source.mapping: there is no file {path}; write a csv with the header source,target and a line "
            "for each class of the source, such as car,vehicle"
        )
    return found


def build_rare_classes(
    data: DataConfig, source: DataSource, *, say: Callable[[str], None] | None = None
) -> RareClassSampling | None:
    """The sampler that draws labeled images by class; None if it is off. Reads every labeled mask."""
    if data.rare_class_sampling is None or not source.labeled:
        return None
    counts = pixel_counts(source.labeled, _masks_read("rare_class_sampling", say))
    return RareClassSampling(counts, **dict(data.rare_class_sampling))


def build_class_share(
    method: MethodConfig, source: DataSource, *, say: Callable[[str], None] | None = None
) -> Tensor | None:
    """(C,) float32: the share of each class among labeled pixels; None if unused. Reads every labeled mask."""
    if not method.balances:
        return None
    counts = pixel_counts(source.labeled, _masks_read("method.supervised_loss.name=balanced", say))
    pixels = torch.from_numpy(counts.sum(axis=0)[: len(source.classes)]).double()
    return (pixels / pixels.sum().clamp(min=1)).float()


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
    rare_classes: RareClassSampling | None = None,
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
    rare_classes: RareClassSampling | None = None,
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


def _in_common(config: Config, source: DataSource, rare_classes: RareClassSampling | None) -> dict[str, Any]:
    """Arguments that batches for training and for a diagnosis share: labels, tags and crops."""
    return {
        "labeled": source.labeled,
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
