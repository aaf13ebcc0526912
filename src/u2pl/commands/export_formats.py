"""The file formats of `u2pl export`: a traced network -> a file -> a function of images."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from u2pl.build.exported import Exported, exported_program
from u2pl.errors import InputError

INPUT, OUTPUT = "image", "scores"
#: Of onnx: the oldest one whose resizing is antialiased.
OPSET = 18
FORMATS = ("onnx", "pt2")
_NEEDS = ("onnx", "onnxscript", "onnxruntime")

#: Images (B, 3, H, W) float32 in [0, 1] -> class scores (B, C, H, W) float32.
Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Traced:
    """A network that torch has traced."""

    program: ExportedProgram
    any_batch: bool  #: False: for one image at a time


def check_format(name: str) -> None:
    """Raise InputError for an unknown format, and for one whose libraries are not installed."""
    if name not in FORMATS:
        raise InputError(f"--format {name}: should be {' or '.join(FORMATS)}")
    missing = [library for library in _NEEDS if find_spec(library) is None] if name == "onnx" else []
    if missing:
        raise InputError(
            f"--format onnx: {', '.join(missing)} is not installed; run `pip install 'u2pl[export]'`, or take "
            "--format pt2"
        )


def trace(module: Exported, name: str, network: str) -> Traced:
    """Trace the module for a format. Raises InputError naming the ``network`` if the format cannot hold it."""
    with quiet(), cannot_hold(name, network):
        program = exported_program(module)
        if name == "onnx" or _takes_one_image(program):
            return Traced(program, any_batch=True)
        return Traced(exported_program(module, any_batch=False), any_batch=False)


def _takes_one_image(program: ExportedProgram) -> bool:
    """Attention layers make torch treat a batch of one image apart, and the program refuse it."""
    try:
        with torch.no_grad():
            program.module()(torch.rand(1, 3, 64, 96))
    except (AssertionError, RuntimeError):
        return False
    return True


def save(traced: Traced, name: str, path: Path, network: str) -> None:
    """Write the file. Raises InputError if the format cannot hold the network."""
    with quiet(), cannot_hold(name, network):
        if name == "pt2":
            with path.open("wb") as file:
                torch.export.save(traced.program, file)
            return
        axes = ({0: "batch", 2: "height", 3: "width"},)
        made = torch.onnx.export(
            traced.program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=axes,
        )
        assert made is not None
        made.save(path, external_data=False)


def load(path: Path, name: str) -> Run:
    """The function in a file, on the CPU, with as many threads as torch uses."""
    if name == "pt2":
        with path.open("rb") as file:
            return torch.export.load(file).module()
    session = onnx_session(path)
    return lambda image: torch.from_numpy(session.run([OUTPUT], {INPUT: image.contiguous().numpy()})[0])


def onnx_session(path: Path) -> Any:
    """onnxruntime's session of a file."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return InferenceSession(path, options, providers=["CPUExecutionProvider"])


@contextmanager
def cannot_hold(name: str, network: str) -> Iterator[None]:
    """Turn what torch raises for a network into one line."""
    try:
        yield
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:  # torch and onnx raise errors of many kinds
        why = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise InputError(f"--format {name}: cannot hold {network} ({why.strip()[:200]}); try another format") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and logs of torch and onnx: a check says whether the file is right."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
