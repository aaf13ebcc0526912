"""Parameters that no loss can reach: distributed training would wait for their gradients forever."""

from __future__ import annotations

import copy
from dataclasses import fields

import torch
from torch import Tensor, nn


def unreached(network: nn.Module, *, height: int, width: int) -> list[str]:
    """Names of the parameters on which no output of a training step depends, found by a backward pass.

    Some encoders have stages that a decoder leaves out (PSPNet), or a head for whole images. The pass runs on the meta
    device, where tensors have shapes but no contents, so nothing is computed.

    Args:
        network: images (B, 3, H, W) -> :class:`~u2pl.structures.SegmentationOutput`. A step uses all of its outputs.
        height, width: of a training crop.
    """
    shadow = copy.deepcopy(network).to("meta").train()
    output = shadow(torch.empty(2, 3, height, width, device="meta"))
    values = [getattr(output, field.name) for field in fields(output)]
    total = sum(value.sum() for value in values if isinstance(value, Tensor) and value.requires_grad)
    parameters = {name: each for name, each in shadow.named_parameters() if each.requires_grad}
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)  # type: ignore[arg-type]
    return [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None]


def freeze_unreached(network: nn.Module, *, height: int, width: int) -> None:
    """Let distributed training leave out the :func:`unreached` parameters. They keep their values, as in one process.

    DDP can also search for them in every step, which costs a walk through the graph and a further exchange.
    """
    for name in unreached(network, height=height, width=width):
        network.get_parameter(name).requires_grad_(False)
