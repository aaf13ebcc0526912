"""What fits into memory: a training step, and an image as a whole."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from u2pl.errors import InputError

_UNKNOWN = 8 * 2**30  # bytes, of a small machine
_SAMPLE = 256  # side of a small image
_LAYERS, _SCORES = 2400, 1000  # bytes per pixel: outputs of a large network's layers; class scores, several times
_WHOLE_SHARE = 0.25  # of the memory


def activation_bytes(network: nn.Module, images: int, height: int, width: int, *, kept: bool = False) -> int:
    """Lower bound of the memory for the outputs of a network's layers in a training step, at 2 bytes per number.

    With ``kept``, only outputs that need a gradient count: autograd keeps none of a frozen part.

    The network runs on the meta device, where tensors have shapes but no contents, so nothing is computed.
    """
    total = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        # Transformers have many layers that return their input: nn.Identity, dropout with probability 0.
        if not isinstance(output, torch.Tensor) or (kept and not output.requires_grad):
            return
        if all(output is not given for given in inputs):
            total += 2 * output.numel()

    shadow = copy.deepcopy(network).to("meta").train()
    for module in shadow.modules():
        if not list(module.children()) and not getattr(module, "inplace", False):
            module.register_forward_hook(count)
    try:
        shadow(torch.empty(images, 3, height, width, device="meta"))
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        return 2**62  # more numbers than torch can count
    return total


def total_memory(device: torch.device) -> int | None:
    """Memory of a device in bytes, as far as this process may use it; None if it is unknown."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limits = [*_container_limits(), *_process_limits()]
    with suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def _container_limits() -> Iterator[int]:
    """The memory of a container, if it is limited."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # not there, or `max`
            yield int(Path(path).read_text())


def _process_limits() -> Iterator[int]:
    """The limit of `ulimit -v`, if there is one."""
    with suppress(ImportError, OSError, ValueError):  # not on Windows
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            yield limit


def whole_pixels(network: nn.Module, device: torch.device) -> int:
    """Pixels of the largest image that the network can process whole, with room for its class scores.

    Estimated from the outputs of its layers for a small image, and the same for all sizes.
    """
    available = total_memory(device) or _UNKNOWN
    try:
        layers = activation_bytes(network, 1, _SAMPLE, _SAMPLE) / _SAMPLE**2
    except RuntimeError:  # a network that computes with values
        layers = _LAYERS
    return int(_WHOLE_SHARE * available / (layers + _SCORES))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or the error that it was raised from, says that the memory is full."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, RuntimeError) and "allocate memory" in str(error):  # torch uses it for many errors
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def require_values(network: nn.Module, *, images: int, height: int, width: int) -> None:
    """Raise InputError if a batch normalisation gets one value per channel from the smallest batch of a training."""
    shadow = copy.deepcopy(network).to("meta").train()
    try:
        shadow(torch.empty(images, 3, height, width, device="meta"))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"train.batch_size: a batch of {images} with crops of {height}x{width} has one value per channel in the "
            "network, too few to normalise; raise train.batch_size or train.crop_size"
        ) from error
    except RuntimeError:  # sizes that torch cannot count: require_memory says so
        return


def require_weights(build: Callable[[], nn.Module], device: torch.device) -> None:
    """Raise InputError if the weights of a network, their gradients and momentum cannot fit the memory of ``device``.

    The network is built without memory for its weights.
    """
    try:
        with torch.device("meta"):
            needed = 3 * sum(parameter.numel() * parameter.element_size() for parameter in build().parameters())
    except (InputError, NotImplementedError, RuntimeError):  # an error of its own, or it computes while it is built
        return
    available = total_memory(device)
    if available is not None and needed > available:
        raise InputError(
            f"network.channels: the network needs at least {needed / 2**30:.0f} GiB in training, this machine has "
            f"{available / 2**30:.0f}; lower network.channels, network.low_level_channels or network.embedding_dim"
        )


def require_contrast(device: torch.device, *, classes: int, dim: int, anchors: int, negatives: int, keys: int) -> None:
    """Raise InputError if the similarities of a contrast, or its queues of ``keys``, cannot fit the memory."""
    available = total_memory(device)
    similarities = 8 * classes * anchors * negatives + 4 * classes * (anchors + negatives) * dim
    queues = 4 * classes * keys * dim
    if available is None or max(similarities, queues) <= available:
        return
    names = ("anchors", "negatives") if similarities > queues else ("bank_size", "background_bank_size")
    raise InputError(
        f"method.contrast.{names[0]}: the contrast needs at least {max(similarities, queues) / 2**30:.0f} GiB, this "
        f"machine has {available / 2**30:.0f}; lower method.contrast.{names[0]} or method.contrast.{names[1]}"
    )


def require_memory(network: nn.Module, device: torch.device, *, images: int, height: int, width: int) -> None:
    """Raise InputError if a training step on ``images`` crops cannot fit the memory of ``device``."""
    available = total_memory(device)
    needed = activation_bytes(network, images, height, width, kept=True)
    if available is not None and needed > available:
        raise InputError(
            f"train.crop_size: {images} crops of {height}x{width} need at least {needed / 2**30:.0f} GiB in one step, "
            f"this machine has {available / 2**30:.0f}; lower train.crop_size or train.batch_size"
        )
