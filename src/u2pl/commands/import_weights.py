"""The command `u2pl import-weights`: a checkpoint of the released code -> a file of weights with its description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from u2pl.build.trained import WEIGHTS_SUFFIX
from u2pl.commands.run_folder import network_description
from u2pl.config.schema import Config, EvaluationConfig, MethodConfig, NetworkConfig
from u2pl.data.readers.cityscapes import CLASSES as CITYSCAPES
from u2pl.data.readers.cityscapes import PALETTE as CITYSCAPES_PALETTE
from u2pl.data.readers.pascal_voc import CLASSES as PASCAL_VOC
from u2pl.data.readers.pascal_voc import voc_palette
from u2pl.data.source import DataSource
from u2pl.engine.checkpoint import save_weights
from u2pl.errors import InputError
from u2pl.networks.released import load_released


def import_released(
    released: Path, out: Path, *, classes: int | None = None, network: str | None = None, output_stride: int = 8
) -> str:
    """Write ``out`` for :func:`u2pl.load_network` and :class:`u2pl.Predictor`. Returns one line about its contents.

    Args:
        released, network, output_stride: see :func:`u2pl.networks.released.load_released`.
        out: a ``.safetensors`` file; an existing one is replaced.
        classes: the expected number of classes. 21 classes get the names and colours of PASCAL VOC. 19 classes get
            those of Cityscapes, and its protocol, sliding windows. Others are called ``class_0``, ``class_1``, ...

    Raises InputError, and writes nothing, if the checkpoint is not valid or of another network, or if ``out`` cannot be
    written.
    """
    if out.suffix != WEIGHTS_SUFFIX or out.is_dir():
        raise InputError(f"--out {out}: should be a file that ends in {WEIGHTS_SUFFIX}")
    if output_stride not in (8, 16):
        raise InputError(f"--output-stride {output_stride}: should be 8 or 16")
    if out.exists() and out.resolve() == released.resolve():
        raise InputError(f"--out {out}: is the checkpoint itself; write another file")
    found, options = load_released(released, network=network, output_stride=output_stride)
    count = options["num_classes"]
    if classes is not None and classes != count:
        raise InputError(f"--classes {classes}: {released} has {count} classes; correct the number or leave it out")
    description = network_description(_config(options), _source(count))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_weights(out, found, description)
    except OSError as error:
        raise InputError(f"--out {out}: cannot write there ({error.strerror})") from error
    heads = [f"embedding of {options['embedding_dim']}"] if options["embedding_dim"] else []
    heads += ["auxiliary"] if options["auxiliary"] else []
    return f"{options['encoder']}, {count} classes, further heads: {', '.join(heads) or 'none'}; written to {out}"


def _config(options: dict[str, Any]) -> Config:
    """The configuration of a run that trains this network."""
    kept = {key: value for key, value in options.items() if key != "num_classes" and value is not None}
    method = "u2pl" if options["embedding_dim"] else "supervised"
    sliding = options["num_classes"] == len(CITYSCAPES)  # as in the paper, which evaluates PASCAL VOC on whole images
    return Config(
        network=NetworkConfig(name="deeplabv3plus", **kept),
        method=MethodConfig(name=method),
        evaluation=EvaluationConfig(protocol="sliding", window=769, overlap=0.333) if sliding else EvaluationConfig(),
    )


def _source(count: int) -> DataSource:
    """Names and colours of the classes, without images."""
    names, palette = tuple(f"class_{index}" for index in range(count)), voc_palette(count)
    if count == len(PASCAL_VOC):
        names = PASCAL_VOC
    elif count == len(CITYSCAPES):
        names, palette = CITYSCAPES, CITYSCAPES_PALETTE
    return DataSource(classes=names, labeled=(), unlabeled=(), val=(), palette=palette)
