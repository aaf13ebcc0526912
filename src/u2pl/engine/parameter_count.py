"""The number of parameters of a network, in use and in training."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from u2pl.engine.inference import Tagged


def training_parameters(network: nn.Module) -> int:
    """All parameters, including heads that are only used in training."""
    return sum(parameter.numel() for parameter in network.parameters())


def trained_parameters(network: nn.Module) -> int:
    """Those of the :func:`training_parameters` that are not frozen."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def inference_parameters(network: nn.Module, *, height: int, width: int) -> int:
    """Parameters that the class scores of an image of this size depend on, including a classification head.

    The function walks the graph that autograd records on the meta device. Nothing is computed, and ``network`` does not
    change.
    """
    shadow = copy.deepcopy(network).to("meta").eval().requires_grad_(True)
    with torch.enable_grad():
        scores = Tagged(shadow)(torch.empty(1, 3, height, width, device="meta"))
    waiting: list[Any] = [scores.grad_fn]
    seen, reached = set(waiting), 0
    while waiting:
        node = waiting.pop()
        if hasattr(node, "variable"):  # the node that collects the gradient of a parameter
            reached += node.variable.numel()
        following = {before for before, _ in node.next_functions if before is not None} - seen
        seen |= following
        waiting += following
    return reached
