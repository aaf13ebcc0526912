"""An exported onnx file -> one of 8 bits, with what that costs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from u2pl.commands.export_check import seconds
from u2pl.commands.export_formats import INPUT, Run, cannot_hold, load, quiet
from u2pl.commands.export_sidecar import write_sidecar
from u2pl.data.source import DataSource, Sample
from u2pl.engine.checkpoint import write_atomically
from u2pl.engine.evaluate import Scores, count

_CALIBRATION, _SCORED = 16, 100  # images


@dataclass(frozen=True)
class Quantized:
    """A file of 8 bits beside the float one."""

    path: Path
    megabytes: float
    float_miou: float  #: of the float file, on the same images
    miou: float
    images: int  #: that both were scored on
    faster: float  #: than the float file


def quantized(
    path: Path, out: Path, source: DataSource, classes: Sequence[str], sidecar: Mapping[str, Any]
) -> Quantized:
    """Quantise weights and activations with onnxruntime, and score both files on validation images of their own size.

    Ranges of activations are measured on labeled training images. The description of the file is the ``sidecar`` of the
    float one, with both scores. Raises InputError, and leaves no file, if the quantiser cannot handle the network, or
    an image cannot be read.
    """
    calibration, samples = spread(source.labeled, _CALIBRATION), spread(source.val, _SCORED)
    found: list[Quantized] = []

    def make(target: Path) -> None:
        _quantize(path, target, calibration)
        whole, small = load(path, "onnx"), load(target, "onnx")
        before, after = (_scores(run, samples, classes).miou for run in (whole, small))
        faster = seconds(whole) / seconds(small)
        found.append(Quantized(out, target.stat().st_size / 1e6, before, after, len(samples), faster))

    def describe() -> None:
        scores = {"float": round(found[0].float_miou, 2), "int8": round(found[0].miou, 2), "images": len(samples)}
        write_sidecar(out, {**sidecar, "quantized": "int8", "validation_miou": scores})

    write_atomically(out, make, before=describe)
    return found[0]


def _quantize(path: Path, target: Path, samples: Sequence[Sample]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = (_pixels(sample) for sample in samples)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.images, None)
            return None if image is None else {INPUT: image.numpy()}

    with quiet(), cannot_hold("onnx --int8", "this network"), tempfile.TemporaryDirectory() as folder:
        folded = Path(folder) / "folded.onnx"  # normalisations go into the convolutions
        quant_pre_process(path, folded, skip_symbolic_shape=True)
        quantize_static(
            folded,
            target,
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
        )


def _scores(run: Run, samples: Sequence[Sample], classes: Sequence[str]) -> Scores:
    confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    for sample in samples:
        confusion += count(sample.mask()[None], run(_pixels(sample)).argmax(dim=1), len(classes))
    return Scores.from_confusion(confusion, classes)


def _pixels(sample: Sample) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return sample.image()[None].float().div(255)


def spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many samples, evenly spread."""
    return [samples[index] for index in range(0, len(samples), -(-len(samples) // most))] if samples else []
