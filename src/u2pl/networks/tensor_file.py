"""Read files of tensors without running code from them, and report how they differ from a network's tensors."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from u2pl.errors import InputError
from u2pl.paths import is_file, is_folder

# Training scripts also save scores as numpy scalars. Those of numpy 1 name a module that numpy 2 has moved. The entries
# below can only create numbers: an object scalar needs a data type that is not listed.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_SCALARS: list[Any] = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4")),
]


def read_tensor_file(path: Path, *, source: str) -> object:
    """Read a ``.safetensors`` file, or a file of ``torch.save``, that holds only tensors, numbers and containers.

    Raises:
        InputError: one line that begins with ``source``, if the file is missing or holds anything else.
    """
    if not is_file(path):
        what = "is a folder" if is_folder(path) else "is missing, or no regular file"
        raise InputError(f"{source} {what}; give a file of weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings would add lines to the error
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{source} is damaged, or holds Python objects, which u2pl does not load for safety; "
            "save the state_dict() again"
        ) from error
    except Exception as error:  # unpickling a damaged file can raise anything
        raise InputError(
            f"{source} is damaged or no checkpoint ({first_sentence(error)}); fetch or save it again"
        ) from error


def mismatch(*, missing: Sequence[str], misshapen: Sequence[str], excess: Sequence[str]) -> str:
    """Short text on how a file's tensors differ from a network's, with the first names; empty if they do not."""
    kinds = ((missing, "tensors missing"), (misshapen, "of another shape"), (excess, "unexpected"))
    return "; ".join(
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, what in kinds
        if names
    )


def first_sentence(error: BaseException) -> str:
    """The first sentence of an error, or its type if it has no message."""
    text = re.split(r"\.\s|\n", str(error).strip(), maxsplit=1)[0]
    return text[:160] or type(error).__name__
