"""A file of weights -> the trained network in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from u2pl.build.description import checked_description
from u2pl.build.network import build_inference, build_network
from u2pl.config.overrides import load_config
from u2pl.config.schema import Config
from u2pl.engine.checkpoint import fits, load_weights, read_description
from u2pl.engine.inference import Inference
from u2pl.errors import InputError
from u2pl.networks.image_classifier import ImageClassifier
from u2pl.paths import is_file

#: Suffix of a file of weights. A run is a folder.
WEIGHTS_SUFFIX = ".safetensors"
#: Weights that a run folder may hold: of the end of training, and of the best validation.
WEIGHTS = ("last", "best")
#: Prefix of the tensors of the image prior in a file of weights.
IMAGE_PRIOR = "image_prior"
_READING = ("bands", "value_range")  # keys of `data` that say how image files become RGB


@dataclass(frozen=True)
class Trained:
    """A trained network, and how it processes an image."""

    network: nn.Module
    image_prior: ImageClassifier | None  #: on the device of the network
    inference: Inference
    description: dict[str, Any]  #: see :class:`u2pl.build.description.Description`


def weights_file(run: Path, weights: str = "last") -> Path:
    """The file of weights of a run folder. ``weights`` is ``last`` (end of training) or ``best`` (on validation).

    Raises InputError if the folder does not hold it.
    """
    check_weights(weights)
    path = run / f"{weights}{WEIGHTS_SUFFIX}"
    if is_file(path):
        return path
    if weights == "best" and is_file(run / f"last{WEIGHTS_SUFFIX}"):
        raise InputError(
            f"--weights best: {run} has only its last weights, for it had no validation set, or no validation yet; use "
            "--weights last"
        )
    raise InputError(f"{path} is missing; give a run folder made by `u2pl train` that has saved its weights")


def check_weights(weights: str) -> None:
    """Raise InputError for other weights than those that a run has."""
    if weights not in WEIGHTS:
        raise InputError(f"--weights {weights}: should be last or best")


def read_trained(path: Path, device: str | torch.device, overrides: Sequence[str] = ()) -> Trained:
    """Build the network of a file of weights, with its weights.

    ``overrides`` change the inference, and how images are read. Raises InputError if the file is missing or another
    file, and for a key that has no effect on a trained model.
    """
    if not is_file(path):
        raise InputError(f"{path} is missing; give a {WEIGHTS_SUFFIX} file that `u2pl train` or `import-weights` wrote")
    description = checked_description(read_description(path), path)
    description = _changed(description, overrides)
    try:
        if not fits(path, lambda: network_of(description)):
            raise ValueError("tensors of other shapes")
        network, image_prior = network_of(description), None
        state = load_weights(path, network, beside=IMAGE_PRIOR)
        if state:
            encoder = network.image_encoder()  # type: ignore[operator]
            image_prior = ImageClassifier.from_state(encoder, state, num_classes=len(description["classes"])).to(device)
        inference = inference_of(description, image_prior)
    except Exception as error:
        raise InputError(
            f"{path} holds weights that do not fit its description; write it again with `u2pl train` or "
            "`u2pl import-weights`"
        ) from error
    return Trained(network.to(device), image_prior, inference, description)


def network_of(description: dict[str, Any]) -> nn.Module:
    """Build the network that a file of weights describes, without its weights."""
    method = {"name": description["method"], "contrast": description.get("contrast", True)}
    config = Config.model_validate({"network": description["network"], "method": method}, strict=False)
    return build_network(config, len(description["classes"]))


def _changed(description: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The description with other options of the inference, and another way to read images, as ``overrides`` say.

    Raises InputError for a key that has no effect on a trained model.
    """
    for key in (each.partition("=")[0] for each in overrides):
        if not is_used(key):
            raise InputError(f"{key}: has no effect on a trained model; leave it out")
    saved = [*_keys_of("evaluation", description["evaluation"]), *_keys_of("data", description["images"])]
    config = load_config(None, [*saved, *overrides])
    images = config.data.model_dump(include=set(_READING), exclude_none=True)
    return {**description, "evaluation": config.evaluation.model_dump(), "images": images}


def is_used(key: str) -> bool:
    """Whether a key of the configuration changes the predictions of a trained model."""
    return key.startswith("evaluation.") or key in (f"data.{name}" for name in _READING)


def _keys_of(section: str, values: Mapping[str, Any]) -> list[str]:
    return [f"{section}.{key}={json.dumps(value)}" for key, value in values.items()]


def inference_of(description: dict[str, Any], image_prior: ImageClassifier | None = None) -> Inference:
    """The inference that a file of weights describes; whole images if it describes none."""
    evaluation = description.get("evaluation", {})
    return build_inference(Config.model_validate({"evaluation": evaluation}, strict=False).evaluation, image_prior)
