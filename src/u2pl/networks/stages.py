"""The stages of an encoder, found by what its features depend on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from u2pl.networks.resnet import ResNetEncoder

#: Sides of a square image, for encoders that do not accept a small one.
_SIDES = (224, 256, 384, 512)


@dataclass(frozen=True)
class Stages:
    """Everything from the input of an encoder up to a stage, by name: what computes the features of that stage."""

    modules: tuple[str, ...]  #: whose output no later stage changes; with everything inside them
    parameters: tuple[str, ...]  #: including those of ``modules``


def stages_of(encoder: nn.Module, *, side: int) -> list[Stages] | None:
    """All stages of an encoder up to the first, the second, ... one; None if they cannot be told.

    There is one stage for each of the encoder's feature maps, in the order of its output, without the image itself. A
    stage is what this map depends on and the map before it does not. A
    :class:`~u2pl.networks.resnet.ResNetEncoder` has five: its stem and its four layers.

    The function walks the graph that autograd records on the meta device. Nothing is computed, and ``encoder`` does not
    change.

    Args:
        side: of a small image that the encoder accepts.
    """
    if isinstance(encoder, ResNetEncoder):
        return [_up_to(encoder, names) for names in _resnet_stages()]
    for each in (side, *_SIDES):
        try:
            return _traced(encoder, each)
        except (RuntimeError, ValueError, AssertionError, NotImplementedError, TypeError):  # each family has its own
            continue
    return None


def _resnet_stages() -> Iterator[list[str]]:
    """The modules of a ResNet up to each of its stages."""
    names = ["conv1", "bn1", "act1"]
    yield list(names)
    names.append("maxpool")
    for number in range(1, 5):
        names.append(f"layer{number}")
        yield list(names)


def _up_to(encoder: nn.Module, names: Sequence[str]) -> Stages:
    parameters = (f"{name}.{each}" for name in names for each, _ in encoder.get_submodule(name).named_parameters())
    return Stages(tuple(names), tuple(parameters))


def _traced(encoder: nn.Module, side: int) -> list[Stages]:
    shadow = copy.deepcopy(encoder).to("meta").train().requires_grad_(True)
    made: dict[str, list[Any]] = {}  # module -> the nodes of the graph that made its outputs
    for name, module in shadow.named_modules():
        module.register_forward_hook(partial(_note, made.setdefault(name, [])))
    with torch.enable_grad():
        output = shadow(torch.empty(2, 3, side, side, device="meta"))
    features = output[0] if isinstance(output, tuple) else output  # those of DPT return prefix tokens, too
    owners = {id(parameter): name for name, parameter in shadow.named_parameters()}
    found = []
    for feature in features:
        if feature.grad_fn is None:  # the image itself, or a placeholder
            continue
        nodes = _behind(feature.grad_fn)
        modules = [name for name, outputs in made.items() if outputs and nodes.issuperset(outputs)]
        used = {owners[id(node.variable)] for node in nodes if hasattr(node, "variable")}
        for name in modules:
            used |= {f"{name}.{each}".lstrip(".") for each, _ in shadow.get_submodule(name).named_parameters()}
        found.append(Stages(tuple(_topmost(modules)), tuple(name for name in owners.values() if name in used)))
    return found


def _note(nodes: list[Any], module: nn.Module, inputs: Any, output: Any) -> None:
    """Keep the nodes of the graph that made the output of a module."""
    for tensor in output if isinstance(output, (list, tuple)) else [output]:
        if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
            nodes.append(tensor.grad_fn)


def _behind(node: Any) -> set[Any]:
    """A node of the graph and all nodes that it depends on."""
    seen, waiting = {node}, [node]
    while waiting:
        following = {before for before, _ in waiting.pop().next_functions if before is not None} - seen
        seen |= following
        waiting += following
    return seen


def _topmost(names: Sequence[str]) -> Iterator[str]:
    """The names that are not inside of another one."""
    for name in names:
        if not any(name.startswith(f"{other}.") or (other == "" and name) for other in names):
            yield name
