"""Compiled networks: `torch.compile` fuses their operations for training, at images of one size.

Student and teacher are compiled in place (:meth:`torch.nn.Module.compile`): their types, the names in their state dicts
and their copies stay as they are. A copy is not compiled.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from u2pl.errors import InputError
from u2pl.methods.ema import EmaTeacher

_CXX = {"darwin": "clang++", "win32": "cl"}  # else g++
_OLDEST_GPU = (7, 0)  # compute capability that Triton supports
_COMPILER = ("torch._dynamo", "torch._inductor", "triton")  # modules that define the errors of the compiler


def missing_compiler(device: torch.device) -> str | None:
    """What networks lack to be compiled for a device, in a few words; None if there is all they need."""
    if device.type not in ("cpu", "cuda"):
        return f"no compiler for {device.type}"
    if device.type == "cuda" and find_spec("triton") is None:
        return "no Triton here"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < _OLDEST_GPU:
        return "the GPU is too old for Triton"
    # Triton compiles its launchers in C, and the CPU its kernels in C++. Both include the headers of Python.
    language, variable = ("C", "CC") if device.type == "cuda" else ("C++", "CXX")
    usual = ("gcc", "clang") if language == "C" else (_CXX.get(sys.platform, "g++"),)
    chosen = os.environ.get(variable)
    if not any(shutil.which(name) for name in ((chosen,) if chosen else usual)):
        return f"no {language} compiler ({chosen or usual[0]}) here"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "no Python.h here"
    return None


def require_compiler(device: torch.device) -> None:
    """Raise InputError if no network can be compiled for a device."""
    missing = missing_compiler(device)
    if missing is not None:
        raise InputError(f"train.compile: {missing}; install it, or set train.compile=false")


def compile_networks(student: nn.Module, method: nn.Module) -> None:
    """Compile the student, and the teachers of a method, in place.

    Nothing is compiled before the first pass. Each size of a batch and each mode gets a graph of its own: a size that
    may vary would make all of them slower, and a training has few.
    """
    for network in (student, *(part.network for part in method.modules() if isinstance(part, EmaTeacher))):
        network.compile(dynamic=False)


def eagerly(student: nn.Module) -> AbstractContextManager[object]:
    """A context without compilation. Networks run as if they were not compiled, at images of any size.

    ``student``: is not wrapped. If it is not compiled, the context does nothing, as the compiler is slow to import.
    """
    return nullcontext() if student._compiled_call_impl is None else torch.compiler.set_stance("force_eager")


@contextmanager
def compiler_errors_are_bad_input() -> Iterator[None]:
    """Turn the errors of the compiler into an InputError that names the key."""
    try:
        yield
    except Exception as error:
        if not any(kind.__module__.startswith(_COMPILER) for kind in type(error).__mro__):
            raise
        cause = getattr(error, "inner_exception", error)  # what the compiler wraps
        if isinstance(cause, torch.OutOfMemoryError):
            raise cause from error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        reason = ": ".join([type(cause).__name__, *lines[:1]])
        raise InputError(
            f"train.compile: the network cannot be compiled ({reason}); set train.compile=false, and choose another "
            "--out"
        ) from error
