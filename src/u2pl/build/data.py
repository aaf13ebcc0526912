"""Configuration -> data sets and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from u2pl.build.accepted import accepted
from u2pl.build.method import contrasts, strong_views
from u2pl.config import Config, DataConfig
from u2pl.data.batches import Batches, loader, step_seed
from u2pl.data.cityscapes import cityscapes
from u2pl.data.files import cached
from u2pl.data.folder import folder
from u2pl.data.pascal_voc import pascal_voc
from u2pl.data.scenes import scenes
from u2pl.data.source import DataSource
from u2pl.data.transforms import LabeledTransform, UnlabeledTransform
from u2pl.engine.diagnose import Diagnosis
from u2pl.errors import InputError
from u2pl.structures import Batch

READERS: dict[str, Callable[..., DataSource]] = {
    "scenes": scenes,
    "folder": folder,
    "pascal_voc": pascal_voc,
    "cityscapes": cityscapes,
}
_DIAGNOSIS_STREAM = 5  # its batches are not those of a step
_DIAGNOSED = 4  # batches of each process


def build_source(data: DataConfig, *, seed: int) -> DataSource:
    """The data set. Raises InputError for a key its reader has no use for, and for whatever the reader finds wrong."""
    if data.name != "scenes" and data.root is None:
        raise InputError(f"data.root: is needed for data.name={data.name}; give the folder of the data set")
    reader = READERS[data.name]
    options = data.model_dump(exclude={"name", "cache", "workers"}, exclude_none=True)
    if data.name != "scenes" and data.val is not None:
        options["val"] = str(data.val)  # a folder may have a number for its name
    source = reader(**accepted(reader, options, f"data.name={data.name}", "data"), seed=seed)
    return cached(source) if data.cache else source


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
