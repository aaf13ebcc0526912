"""A check before training that a step can fit in memory."""

from __future__ import annotations

import copy
import os
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


def require_memory(network: nn.Module, device: torch.device, *, images: int, height: int, width: int) -> None:
    """Raise InputError if a training step on ``images`` crops cannot fit the memory of ``device``."""
    available = total_memory(device)
    needed = activation_bytes(network, images, height, width)
    if available is not None and needed > available:
        raise InputError(
            f"train.crop_size: {images} crops of {height}x{width} need at least {needed / 2**30:.0f} GiB in one step, "
            f"this machine has {available / 2**30:.0f}; lower train.crop_size or train.batch_size"
        )
