"""The description beside an exported file: what a program needs to know to use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from u2pl import __version__
from u2pl.commands.export_formats import INPUT, OPSET, OUTPUT, Traced
from u2pl.engine.checkpoint import write_text_atomically
from u2pl.errors import InputError
from u2pl.networks import SmpNetwork
from u2pl.paths import read_text
from u2pl.predictor import Predictor

_WRITTEN_BY = "u2pl export"


def sidecar_of(out: Path) -> Path:
    """The description beside an exported file."""
    return out.with_name(f"{out.name}.json")


def is_own(sidecar: Path) -> bool:
    """Whether `u2pl export` wrote the file that a description belongs to."""
    try:
        said = json.loads(read_text(sidecar, give=""))
    except (InputError, ValueError):
        return False
    return isinstance(said, dict) and said.get("written_by") == _WRITTEN_BY


def write_sidecar(out: Path, sidecar: dict[str, Any]) -> None:
    """Write the description of a file."""
    write_text_atomically(sidecar_of(out), json.dumps(sidecar, indent=1) + "\n")


def description(
    predictor: Predictor, network: Any, name: str, traced: Traced, left_out: tuple[str, ...]
) -> dict[str, Any]:
    """What a program needs to know to use the file, as json."""
    pads = isinstance(network, SmpNetwork)
    return {
        "written_by": _WRITTEN_BY,
        "format": name,
        "opset": OPSET if name == "onnx" else None,
        "input": {
            "name": INPUT,
            "shape": ["batch" if traced.any_batch else 1, 3, "height", "width"],
            "type": "float32",
        },
        "input_values": "RGB in [0, 1]",
        "output": {"name": OUTPUT, "shape": ["as input", len(predictor.classes), "height", "width"], "type": "float32"},
        "output_values": "class scores; their softmax is the probability",
        "classes": list(predictor.classes),
        "palette": [list(colour) for colour in predictor.palette],
        "inside": {
            "mean": _numbers(network.normalize.mean),
            "std": _numbers(network.normalize.std),
            "padding_to_multiple": network.multiple if pads else 1,
            "scale": predictor.scale,
        },
        "left_out": list(left_out),
        "u2pl": __version__,
        "torch": torch.__version__,
    }


def _numbers(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.flatten().tolist()]


def left_out_of(description: dict[str, Any], has_prior: bool) -> tuple[str, ...]:
    """What `u2pl predict` does with this network, and the file does not; one line each."""
    evaluation = description.get("evaluation", {})
    lines = []
    if has_prior and evaluation.get("image_prior", 1.0) > 0:
        lines.append("the image prior, which `u2pl predict` adds to the scores of each image (evaluation.image_prior)")
    if evaluation.get("flip"):
        lines.append("the mirror image (evaluation.flip)")
    if any(scale != 1 for scale in evaluation.get("scales", ())):
        lines.append("several scales (evaluation.scales)")
    if evaluation.get("protocol") == "sliding":
        lines.append("windows: the file takes the whole image (evaluation.protocol)")
    if description.get("images"):
        lines.append(f"how files become RGB ({', '.join(f'data.{key}' for key in description['images'])})")
    return tuple(lines)
