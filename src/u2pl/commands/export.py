"""The command `u2pl export`: a trained network -> a file that runs without u2pl, checked against the network."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from u2pl.build import build_source
from u2pl.build.exported import Exported
from u2pl.build.trained import WEIGHTS_SUFFIX, read_trained
from u2pl.commands.distill import require_finished
from u2pl.commands.export_check import Agreement, agreement, refuse_disagreement, seconds
from u2pl.commands.export_formats import Run, check_format, load, save, trace
from u2pl.commands.export_sidecar import description, is_own, left_out_of, sidecar_of, write_sidecar
from u2pl.commands.quantizing import Quantized, quantized
from u2pl.config.overrides import load_saved
from u2pl.data.source import DataSource
from u2pl.engine.checkpoint import write_atomically
from u2pl.errors import InputError
from u2pl.paths import is_file
from u2pl.predictor import Predictor
from u2pl.report.printing import print_line

_REAL_IMAGES = 4  # of the validation set, in the check
#: One pass over the whole image, as the file does it.
_PLAIN = ("protocol=whole", "scales=[1.0]", "flip=false", "image_prior=0")


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written."""

    path: Path
    megabytes: float
    seconds: float  #: that the export and its check took
    agreement: Agreement
    faster: float  #: time of PyTorch over time of the file, for an image of 480x360 on the CPU
    quantized: Quantized | None = None  #: the second file, of 8 bits


def export(
    run: Path,
    out: Path | None = None,
    *,
    name: str = "onnx",
    weights: str = "last",
    int8: bool = False,
    say: Callable[[str], None] = print_line,
) -> ExportedFile:
    """Write the network of a run as ``out`` and its description as ``out.json``.

    The file takes images (B, 3, H, W) float32 in [0, 1] of any size, and returns class scores (B, C, H, W) float32,
    whose softmax is the prediction. It is compared with the network on the CPU before it takes its place.

    Args:
        run: a finished run folder, or a ``.safetensors`` file.
        out: None: ``last.onnx`` in the run, named after weights and format.
        name: the format, onnx or pt2.
        weights: ``last`` or ``best``.
        int8: also write ``out`` with the ending ``.int8.onnx``, see :func:`u2pl.commands.quantizing.quantized`.

    Raises InputError, and leaves no file, for a run or a folder that cannot be used, a format that is unknown, not
    installed, or cannot hold the network, and a file that differs from the network. If only ``int8`` fails, the other
    file stays.
    """
    check_format(name)
    if int8 and name != "onnx":
        raise InputError(f"--int8: is for --format onnx, not {name}; leave one of them out")
    path = run if run.suffix == WEIGHTS_SUFFIX else run / f"{weights}{WEIGHTS_SUFFIX}"
    out = path.with_suffix(f".{name}") if out is None else out
    targets = [out, *([out.with_suffix(f".int8{out.suffix}")] if int8 else [])]
    for target in targets:
        refuse_foreign(target, name)
    if run.suffix != WEIGHTS_SUFFIX:
        if not is_file(run / "config.yaml"):
            raise InputError(f"{run} is no run folder: config.yaml is missing; give one made by `u2pl train`")
        require_finished(run)
    predictor = Predictor.load(run, weights=weights, overrides=[f"evaluation.{each}" for each in _PLAIN])
    trained = read_trained(path, "cpu")
    network, left_out = _named(trained.description), left_out_of(trained.description, trained.image_prior is not None)
    source = _data_of(run, predictor)
    if int8 and (source is None or not source.val or not source.labeled):
        raise InputError(
            f"--int8: needs the images of {run}, to calibrate and to score; leave it out, or mend data.root"
        )
    images = [] if source is None else _some_images(source)
    for line in left_out:
        say(f"not in the file: {line}")
    began = time.perf_counter()
    module = Exported(trained.network, scale=predictor.scale, tags=bool(predictor.evaluation.get("tags", True)))
    traced = trace(module, name, network)
    if not traced.any_batch:
        say(f"--format {name}: cannot hold a changing number of images of {network}: one image at a time")
    found: list[tuple[Run, Agreement]] = []

    def checked(partial_path: Path) -> None:
        save(traced, name, partial_path, network)
        loaded = load(partial_path, name)  # once: torch takes long
        found.append((loaded, agreement(loaded, predictor, images, any_batch=traced.any_batch)))
        refuse_disagreement(found[0][1], name, network)

    sidecar = description(predictor, trained.network, name, traced, left_out)
    _make_parent(out)
    write_atomically(out, checked, before=partial(write_sidecar, out, sidecar))  # a file without one is not replaced
    ((loaded, agreed),) = found
    took = time.perf_counter() - began
    eight = None
    if int8 and source is not None:
        eight = quantized(out, targets[1], source, predictor.classes, sidecar)
    module.network = predictor.network  # in the memory format in which `u2pl predict` has it
    module.segment = type(module.segment)(predictor.network)
    faster = seconds(module) / seconds(loaded)
    return ExportedFile(out, out.stat().st_size / 1e6, took, agreed, faster, eight)


def refuse_foreign(out: Path, name: str) -> None:
    """Raise InputError for another ending, a folder, and an existing file that `u2pl export` did not write."""
    if out.suffix != f".{name}" or out.is_dir():
        raise InputError(f"--out {out}: should be a file that ends in .{name}")
    beside = sidecar_of(out)
    for path in (out, beside):
        if path.exists() and not is_own(beside):
            raise InputError(f"--out {out}: {path} exists, and `u2pl export` did not write it; choose another file")
    parent = next(each for each in out.absolute().parents if each.exists())
    if not parent.is_dir():
        raise InputError(f"--out {out}: cannot write there, {parent} is a file; choose another folder")
    if not os.access(parent, os.W_OK):
        raise InputError(f"--out {out}: cannot write there, {parent} is read-only; choose another folder")


def _make_parent(out: Path) -> None:
    """Make the folder of the file. Raises InputError if nothing can be written there."""
    probe = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"--out {out}: cannot write there ({error.strerror})") from error


def _named(description: dict[str, Any]) -> str:
    network = description["network"]
    architecture = network.get("architecture") if network.get("name") == "smp" else network.get("name")
    return f"{architecture} on {network.get('encoder')}"


def _data_of(run: Path, predictor: Predictor) -> DataSource | None:
    """The run's data set with images at their own size; None if it is not there."""
    if run.suffix == WEIGHTS_SUFFIX:
        return None
    try:
        config = load_saved(run / "config.yaml")
        whole = dict.fromkeys(_scales(config), 1.0)
        data = config.with_values({**whole, "data.pseudo_masks": None, "data.cache": False}).data
        source = build_source(data, seed=config.seed)
    except InputError:
        return None
    return source if source.classes == predictor.classes else None


def _some_images(source: DataSource) -> list[Tensor]:
    """Some of the validation images that can be read, (3, H, W) uint8."""
    found = []
    for sample in source.val[:: max(1, len(source.val) // _REAL_IMAGES)][:_REAL_IMAGES]:
        with suppress(InputError):
            found.append(sample.image())
    return found


def _scales(config: Any) -> Iterator[str]:
    """Keys that resize the images of a data set."""
    for section in ("data", "data.source", "data.target"):
        if getattr(config.value(section), "scale", None) is not None:
            yield f"{section}.scale"
