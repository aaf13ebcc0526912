"""A check before training that a step can fit in memory."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from u2pl.errors import InputError


def activation_bytes(network: nn.Module, images: int, height: int, width: int) -> int:
    """Lower bound of the memory for the outputs of a network's layers in a training step, at 2 bytes per number.

    The network runs on the meta device, where tensors have shapes but no contents, so nothing is computed.
    """
    total = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        # Transformers have many layers that return their input: nn.Identity, dropout with probability 0.
        if isinstance(output, torch.Tensor) and all(output is not given for given in inputs):
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
    """Memory of a device in bytes; None if it is unknown."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


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
    needed = activation_bytes(network, images, height, width)
    if available is not None and needed > available:
        raise InputError(
            f"train.crop_size: {images} crops of {height}x{width} need at least {needed / 2**30:.0f} GiB in one step, "
            f"this machine has {available / 2**30:.0f}; lower train.crop_size or train.batch_size"
        )
