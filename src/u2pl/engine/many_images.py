"""A network on many images: several at a time, each with its share of the cores, or in batches on an accelerator."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from queue import SimpleQueue
from typing import TypeVar

import torch
from lightning_fabric.wrappers import _FabricModule
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from u2pl.engine.ahead import ahead
from u2pl.engine.inference import Inference, Segment
from u2pl.engine.memory import is_out_of_memory, whole_pixels
from u2pl.networks.freezing import FreezableNetwork

Item = TypeVar("Item")
Result = TypeVar("Result")
#: What is done with images of one size at a time.
Work = Callable[[Segment, Sequence[Item]], Result]

_AT_ONCE = 8  # images of a batch, or threads: more are hardly faster


def segment_many(
    work: Work[Item, Result],
    items: Iterable[Item],
    *,
    network: nn.Module,
    inference: Inference,
    size: Callable[[Item], tuple[int, int]],
    device: torch.device,
) -> Generator[tuple[Sequence[Item], Result], None, None]:
    """Yield ``(some, work(segment, some))`` until all items are done. ``some`` are items of one size.

    On a CPU they are single items, in their order, and the work is done in several threads: a core is busier with an
    image of its own than with a part of one. On an accelerator they are batches, see :func:`batches`. What works on
    several images and runs out of memory works on each of them again, alone.

    Args:
        work: called with ``inference`` of the network or of its twin. Threads have a gradient mode and an autocast
            state of their own, so the work sets both.
        network: in evaluation mode.
        size: (H, W) of an item.
        device: of the network.
    """
    embeds = any(isinstance(part, FreezableNetwork) and part.projection is not None for part in network.modules())
    segment = inference(twin(network) if embeds else network)
    if device.type != "cpu":
        most = whole_pixels(network, device)
        for some in batches(items, size=size, pixels=most):
            yield from _in_one(work, segment, some)
        return
    cores = torch.get_num_threads()
    if cores == 1:
        yield from (([item], work(segment, [item])) for item in items)
        return
    yield from _in_threads(work, items, network, inference, lambda item: size(item)[0] * size(item)[1], cores)


def batches(items: Iterable[Item], *, size: Callable[[Item], tuple[int, int]], pixels: int) -> Iterator[list[Item]]:
    """Yield lists of items of one size, with at most ``pixels`` each, but at least one item.

    Items wait for others of their size, at most twice as many as the largest batch has. Then those of the first item's
    size go on.
    """
    waiting: dict[tuple[int, int], list[Item]] = {}
    for item in items:
        height, width = size(item)
        alike = waiting.setdefault((height, width), [])
        alike.append(item)
        if len(alike) >= min(_AT_ONCE, pixels // (height * width)):
            yield waiting.pop((height, width))
        elif sum(map(len, waiting.values())) >= 2 * _AT_ONCE:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def in_order(
    batches_done: Generator[tuple[Sequence[tuple[int, Item]], Sequence[Result]], None, None],
) -> Generator[tuple[Item, Result], None, None]:
    """Yield the items of batches with their results, by their numbers from 0 on, each as soon as its turn comes."""
    done: dict[int, tuple[Item, Result]] = {}
    turn = 0
    with closing(batches_done):
        for numbered, results in batches_done:
            for (number, item), result in zip(numbered, results, strict=True):
                done[number] = (item, result)
            while turn in done:
                yield done.pop(turn)
                turn += 1


def twin(network: nn.Module) -> nn.Module:
    """A copy of the modules with the same tensors, without the projection head, whose embeddings only training uses.

    A layer may keep notes of an image, which threads must not share. Of a network that Fabric has wrapped for training,
    it is a copy of the network itself.
    """
    while isinstance(network, (_FabricModule, DistributedDataParallel)):
        network = network.module
    tensors = [*network.parameters(), *network.buffers()]
    copied = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    for part in copied.modules():
        if isinstance(part, FreezableNetwork):
            part.projection = None
    return copied


def _in_one(work: Work[Item, Result], segment: Segment, some: list[Item]) -> Iterator[tuple[Sequence[Item], Result]]:
    """One batch, or its items one by one if it is too large for the memory."""
    try:
        result = work(segment, some)
    except Exception as error:  # one that explains another, too
        if len(some) == 1 or not is_out_of_memory(error):
            raise
    else:
        yield some, result
        return
    yield from (([item], work(segment, [item])) for item in some)  # here the error no longer holds its tensors


def _in_threads(
    work: Work[Item, Result],
    items: Iterable[Item],
    network: nn.Module,
    inference: Inference,
    pixels: Callable[[Item], int],
    cores: int,
) -> Iterator[tuple[Sequence[Item], Result]]:
    limit, lanes = whole_pixels(network, torch.device("cpu")), min(cores, _AT_ONCE)
    segments: SimpleQueue[Segment] = SimpleQueue()
    for _ in range(lanes):
        segments.put(inference(twin(network)))

    def run(item: Item) -> tuple[Sequence[Item], Result]:
        beside = min(lanes, max(1, limit // pixels(item)))  # images that are worked on at a time
        _use_threads(cores // beside)
        segment = segments.get()
        try:
            return [item], work(segment, [item])
        finally:
            segments.put(segment)

    try:
        yield from ahead(run, items, threads=lanes, limit=limit, cost=pixels, again=is_out_of_memory)
    finally:
        torch.set_num_threads(cores)


def _use_threads(number: int) -> None:
    """Let torch use so many threads for the work of this thread."""
    if torch.get_num_threads() != number:  # to set it clears a cache
        torch.set_num_threads(number)
