"""How many parameters a network has where it is used, and where it is trained."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from u2pl.engine.inference import Tagged


def training_parameters(network: nn.Module) -> int:
    """All parameters, those of heads that only train with them."""
    return sum(parameter.numel() for parameter in network.parameters())


def inference_parameters(network: nn.Module, *, height: int, width: int) -> int:
    """Parameters that the class scores of an image of this size depend on, those of a classification head among them.

    Found by walking the graph that autograd records, on the meta device: nothing is computed, and ``network`` stays as
    it is.
    """
    shadow = copy.deepcopy(network).to("meta").eval().requires_grad_(True)
    with torch.enable_grad():
        scores = Tagged(shadow)(torch.empty(1, 3, height, width, device="meta"))
    waiting: list[Any] = [scores.grad_fn]
    seen, reached = set(waiting), 0
    while waiting:
        node = waiting.pop()
        if hasattr(node, "variable"):  # where the gradient of a parameter would gather
            reached += node.variable.numel()
        following = {before for before, _ in node.next_functions if before is not None} - seen
        seen |= following
        waiting += following
    return reached
