"""Files of a run. Each is written completely or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from u2pl.errors import InputError


def write_atomically(
    path: Path, write: Callable[[Path], object], *, before: Callable[[], object] = lambda: None
) -> None:
    """Let ``write`` make a file next to ``path``, then move it there. A kill leaves the old file or the new one.

    ``before`` is called when the new file is complete, just before it takes its place. Raises InputError naming the
    file if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        before()
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)  # a full disk leaves a part of it


def unwritable(path: Path, error: OSError) -> InputError:
    """The error for a file that cannot be written, with the remedy."""
    remedy = "allow it, or choose another folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "free space there; a training then goes on with --resume"
    elif error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
        remedy = "its folder is gone; restore it"
    return InputError(f"{path} cannot be written ({error.strerror or error}); {remedy}")


def _sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power failure, on systems that can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems
        pass
    finally:
        os.close(descriptor)


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file with :func:`write_atomically`."""

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write_atomically(path, write)


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
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} holds no trained network of u2pl; give what `u2pl train` or `u2pl import-weights` wrote"
        ) from error


def fits(path: Path, build: Callable[[], nn.Module]) -> bool:
    """Whether a file of :func:`save_weights` has every tensor of the network, in its shape.

    The network is built without memory for its tensors, so that a description cannot ask for more than the file has.
    """
    try:
        with torch.device("meta"):
            wanted = {name: list(tensor.shape) for name, tensor in build().state_dict().items()}
    except (InputError, NotImplementedError, RuntimeError):  # a network that computes while it is built
        return True
    with safe_open(path, framework="pt") as file:
        known = set(file.keys())
        return all(name in known and file.get_slice(name).get_shape() == shape for name, shape in wanted.items())


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


def read_beside(path: Path, part: str) -> dict[str, Tensor]:
    """The state of a module that :func:`save_weights` saved ``beside`` a network; empty without one."""
    return {name.partition(".")[2]: tensor for name, tensor in load_file(path).items() if name.startswith(f"{part}.")}
