"""The command `u2pl evaluate`: score a run folder or a file of weights on a validation set or other images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from u2pl.build import build_inference, build_seeding, build_source
from u2pl.build.description import checked_description
from u2pl.build.trained import WEIGHTS_SUFFIX
from u2pl.commands.checks import fabric_of
from u2pl.config.overrides import load_config, load_saved
from u2pl.config.schema import Config
from u2pl.data.batches import PIXEL_BYTES, Evaluation
from u2pl.data.files import FileSample
from u2pl.data.loading import fitting_workers, loader
from u2pl.data.mask_values import MaskValues, mask_values, refuse_binary
from u2pl.data.pairing import SAME_NAME, Masks
from u2pl.data.source import Sample, image_size
from u2pl.data.splits import IMAGE_SUFFIXES, is_image
from u2pl.data.walking import files_below
from u2pl.engine.checkpoint import read_description
from u2pl.engine.evaluate import Scores, evaluate
from u2pl.engine.evaluate_maps import evaluate_maps
from u2pl.errors import InputError
from u2pl.paths import is_file, usable
from u2pl.predictor import Predictor

#: Keys that change the scores of a trained model.
_SECTIONS_IN_USE = ("data.", "evaluation.", "method.cam.")
_IN_USE = ("train.accelerator", "train.precision", "train.channels_last", "seed")


def score_run(
    run: Path,
    overrides: Sequence[str] = (),
    *,
    images: Path | None = None,
    masks: Path | None = None,
    weights: str = "last",
) -> Scores:
    """Scores over images at the run's ``data.scale``, with its ``evaluation`` protocol, in one confusion matrix.

    A network with a classification head also gets scores of its maps (:func:`u2pl.engine.evaluate_maps.evaluate_maps`).

    ``run`` may also be a file of weights. ``overrides`` change the configuration of the run, or the defaults for a file
    of weights. Mostly they set its data. Raises InputError if there is nothing to score or a mask does not fit.
    """
    saved = None if run.suffix == WEIGHTS_SUFFIX else run / "config.yaml"  # a file of weights has no configuration
    if saved is not None and not is_file(saved):
        raise InputError(f"{run} is no run folder: config.yaml is missing; give one made by `u2pl train`")
    if (images is None) != (masks is None):
        raise InputError("--images and --masks belong together; give both or neither")
    told = described(run) if saved is None and is_file(run) else []
    changes = ["train.devices=1", "train.nodes=1", *told, *overrides]
    config = load_config(None, changes) if saved is None else load_saved(saved, changes)
    refuse_without_effect(overrides)
    for key in config.auto_keys():
        raise InputError(f"{key}: auto is chosen in training only; give a value")
    fabric = fabric_of(config.train)
    predictor = Predictor.load(run, weights=weights, device=fabric.device)
    if config.train.channels_last:  # as in training: another memory format rounds differently
        for module in (predictor.network, predictor.image_prior):
            if module is not None:
                module.to(memory_format=torch.channels_last)
    samples: Sequence[Sample]
    if images is not None and masks is not None:
        samples = pair_files(
            images,
            masks,
            num_classes=len(predictor.classes),
            lookup=predictor.lookup,
            scale=config.data.val_scale,
            values=mask_values_of(config, predictor),
            pattern=config.data.mask_pattern or SAME_NAME,
            options={"reader": predictor.reader, "resize_mask": bool(config.data.resize_masks)},
        )
    else:
        source = build_source(config.data.model_copy(update={"pseudo_masks": None}), seed=config.seed)
        if source.classes != predictor.classes:
            raise InputError(
                f"data: its classes ({', '.join(source.classes)}) are not those of the model; set data.name "
                "and data.root, or give --images and --masks"
            )
        samples = source.val
    if not samples:
        raise InputError("data.val: the run has no validation set; give one, or --images and --masks")
    network, classes, workers = predictor.network, predictor.classes, _workers(config, samples)
    inference = build_inference(config.evaluation, predictor.image_prior)
    pairs = loader(Evaluation(samples), workers=workers)
    counted = evaluate(fabric, network, pairs, len(classes), inference=inference)
    scores = Scores.from_counted(counted, classes)
    if getattr(network, "classification", None) is None:
        return scores
    pairs = loader(Evaluation(samples), workers=workers)
    maps = evaluate_maps(fabric, network, pairs, len(classes), seeding=build_seeding(config.method))
    return replace(scores, stages={name: Scores.from_confusion(counts, classes) for name, counts in maps.items()})


def refuse_without_effect(overrides: Sequence[str]) -> None:
    """Raise InputError for a key that changes nothing in the scores of a trained model, such as `network.encoder`."""
    for override in overrides:
        key = override.partition("=")[0]
        if key not in _IN_USE and not f"{key}.".startswith(_SECTIONS_IN_USE):
            raise InputError(
                f"{key}: has no effect on a trained model; leave it out, or train with it (evaluate uses data, "
                f"evaluation, method.cam, {', '.join(_IN_USE)})"
            )


def _workers(config: Config, samples: Sequence[Sample]) -> int:
    """As many loader processes as the shared memory has room for."""
    largest = max(height * width for height, width in map(image_size, samples))
    return fitting_workers(config.data.workers, largest * PIXEL_BYTES)


def described(weights: Path) -> list[str]:
    """The inference that a file of weights describes, as overrides of a configuration."""
    description = checked_description(read_description(weights), weights)
    evaluation = [f"evaluation.{key}={json.dumps(value)}" for key, value in description.get("evaluation", {}).items()]
    return evaluation if description["scale"] == 1.0 else [*evaluation, f"data.scale={description['scale']}"]


def pair_files(
    images: Path,
    masks: Path,
    *,
    num_classes: int,
    lookup: tuple[int, ...] | None,
    scale: float,
    values: MaskValues | None = None,
    pattern: str = SAME_NAME,
    options: Mapping[str, Any] | None = None,
) -> list[FileSample]:
    """Match images and masks by their path below the two folders, without suffix, and by a name of this ``pattern``.

    ``options`` are further arguments of the samples.

    Masks have the format of the masks in training: ``lookup`` maps their values to classes, if there was a mapping.

    Raises InputError for a folder without images, an image without a mask, and two images with the same mask.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise InputError(f"{folder} is missing; give a folder")
    paths, _ = files_below(images, is_image)
    if not paths:
        raise InputError(f"{images} holds no image (known: {', '.join(sorted(IMAGE_SUFFIXES))})")
    samples: dict[str, FileSample] = {}
    found_masks = Masks(masks, pattern)
    matched = {path: found_masks.of(path, images) for path in paths}
    found_masks.unused(paths, images)  # raises an error if no mask fits
    for path in paths:
        stem = path.relative_to(images).with_suffix("").as_posix()
        if stem in samples:
            raise InputError(f"{path} and {samples[stem].image_path.name} are two images of one mask; remove one")
        mask = matched[path]
        if mask is None:
            raise InputError(f"{path} has no mask {masks / stem}.png; every image to score needs one")
        samples[stem] = FileSample(stem, path, mask, num_classes, lookup, scale, values, **(options or {}))
    found = list(samples.values())
    if values is None:
        refuse_binary(found, masks)
    return found


def mask_values_of(config: Config, predictor: Predictor) -> MaskValues | None:
    """What the values of masks mean, as in training or as an override says."""
    if config.data.mask_values is None:
        return None
    folders = [] if config.data.root is None else [usable(config.data.root)]
    return mask_values(config.data.mask_values, folders, predictor.classes if predictor.lookup is None else None)
