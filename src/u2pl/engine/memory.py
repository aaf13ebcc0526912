"""Whether a step can fit in memory, told before training starts."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from torch import nn

from u2pl.errors import InputError


def activation_bytes(network: nn.Module, images: int, height: int, width: int) -> int:
    """Least memory the outputs of a network's layers take in a training step (2 bytes a number), without computing.

    The network runs on the meta device, where tensors have shapes and no contents.
    """
    total = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        # Transformers are full of layers that return what they are given: nn.Identity, dropout of probability 0.
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
    """Bytes of memory of a device; None where it cannot be known."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def require_memory(network: nn.Module, device: torch.device, *, images: int, height: int, width: int) -> None:
    """Raise InputError when a training step on ``images`` crops cannot fit the memory of ``device``."""
    available = total_memory(device)
    needed = activation_bytes(network, images, height, width)
    if available is not None and needed > available:
        raise InputError(
            f"train.crop_size: {images} crops of {height}x{width} need at least {needed / 2**30:.0f} GiB in one step, "
            f"this machine has {available / 2**30:.0f}; lower train.crop_size or train.batch_size"
        )
