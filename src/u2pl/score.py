"""Score the model of a run folder on its validation set or on another folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from u2pl.build import build_source
from u2pl.config import load_config
from u2pl.data.batches import Evaluation, loader
from u2pl.data.files import FileSample
from u2pl.data.source import Sample
from u2pl.data.splits import IMAGE_SUFFIXES
from u2pl.engine.evaluate import Scores, evaluate
from u2pl.errors import InputError
from u2pl.predictor import Predictor
from u2pl.run import fabric_of


def score_run(
    run: Path,
    overrides: Sequence[str] = (),
    *,
    images: Path | None = None,
    masks: Path | None = None,
    weights: str = "last",
) -> Scores:
    """Scores over whole images at the run's ``data.scale``, from one confusion matrix.

    ``overrides`` change the configuration of the run, its data first of all. Raises InputError when there is nothing
    to score or a mask does not fit.
    """
    if not (run / "config.yaml").exists():
        raise InputError(f"{run} is no run folder: config.yaml is missing; give one made by `u2pl train`")
    if (images is None) != (masks is None):
        raise InputError("--images and --masks belong together; give both or neither")
    config = load_config(run / "config.yaml", ["train.devices=1", "train.nodes=1", *overrides])
    fabric = fabric_of(config.train)
    predictor = Predictor.from_run(run, weights=weights, device=fabric.device)
    if config.train.channels_last:  # as in training: another memory format rounds otherwise
        predictor.network.to(memory_format=torch.channels_last)
    samples: Sequence[Sample]
    if images is not None and masks is not None:
        samples = pair_files(
            images, masks, num_classes=len(predictor.classes), lookup=predictor.lookup, scale=predictor.scale
        )
    else:
        source = build_source(config.data, seed=config.seed)
        if source.classes != predictor.classes:
            raise InputError(f"data: its classes ({', '.join(source.classes)}) are not those the model was trained on")
        samples = source.val
    if not samples:
        raise InputError("data.val: the run has no validation set; give one, or --images and --masks")
    pairs = loader(Evaluation(samples), workers=config.data.workers)
    return Scores.from_confusion(evaluate(fabric, predictor.network, pairs, len(predictor.classes)), predictor.classes)


def pair_files(
    images: Path, masks: Path, *, num_classes: int, lookup: tuple[int, ...] | None, scale: float
) -> list[FileSample]:
    """Images and masks matched by their path below the two folders, without suffix.

    Masks hold what the masks of the run's training data held: ``lookup`` maps it to classes, where there was a mapping.

    Raises InputError for a folder without images and for an image without a mask.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise InputError(f"{folder} is missing; give a folder")
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise InputError(f"{images} holds no image")
    samples = []
    for path in paths:
        stem = path.relative_to(images).with_suffix("")
        mask = masks / f"{stem}.png"
        if not mask.exists():
            raise InputError(f"{path} has no mask {mask}; every image to score needs one")
        samples.append(FileSample(str(stem), path, mask, num_classes, lookup, scale))
    return samples
