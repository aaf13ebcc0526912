"""Files of a run. Each is written completely or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from u2pl.errors import InputError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file next to ``path``, then move it there. A kill leaves the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)  # a full disk leaves a part of it


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file with :func:`write_atomically`."""

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Save ``state`` (objects with a ``state_dict``, and plain values) for :func:`load_state`."""
    plain = {name: value.state_dict() if hasattr(value, "state_dict") else value for name, value in state.items()}
    write_atomically(path, lambda partial: torch.save(plain, partial))


def load_state(path: Path, state: dict[str, Any]) -> None:
    """Restore a file of :func:`save_state` into the same objects and values. Raises InputError for another file."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        for name, value in state.items():
            if hasattr(value, "load_state_dict"):
                value.load_state_dict(saved[name])
            else:
                state[name] = saved[name]
    except Exception as error:  # unpickling a damaged file can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be resumed from ({reason}); remove it to start this run anew") from error


def save_weights(
    path: Path, network: nn.Module, description: Mapping[str, Any], *, beside: Mapping[str, nn.Module] | None = None
) -> None:
    """Save a network's weights as safetensors, with the description that is needed to build it again.

    ``beside``: other modules of the model. Their key is the prefix of their tensors' names.
    """
    state = dict(network.state_dict())
    for part, module in (beside or {}).items():
        state |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    metadata = {"u2pl": json.dumps(description)}
    data = save(tensors, metadata=metadata)  # save_file would write a file that only its owner can read
    write_atomically(path, lambda partial: _write_bytes(partial, data))


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def read_description(path: Path) -> dict[str, Any]:
    """The description in a file of :func:`save_weights`. Raises InputError for another file."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads(file.metadata()["u2pl"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} holds no trained network of u2pl; give what `u2pl train` or `u2pl import-weights` wrote"
        ) from error


def load_weights(path: Path, network: nn.Module, *, beside: str = "") -> dict[str, Tensor]:
    """Load a file of :func:`save_weights` into a network built in the same way.

    Returns the state of the module that was saved under the name ``beside``; empty without one.
    """
    own, others = {}, {}
    for name, tensor in load_file(path).items():
        part, _, rest = name.partition(".")
        if part == beside:
            others[rest] = tensor
        else:
            own[name] = tensor
    network.load_state_dict(own)
    return others
