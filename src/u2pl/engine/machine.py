"""Devices, processes and precision, by Lightning Fabric."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities import rank_zero_only
from timm.layers import convert_sync_batchnorm
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from u2pl.errors import InputError
from u2pl.networks.shared_batch_norm import SharedBatchNorm2d
from u2pl.threads import bound, own_cores, own_threads

_GRAIN = 32_768  # numbers from which on torch gives work to one more thread

_computing: Sequence[int] = ()  # the threads that torch computes with, besides the one that calls it

_PRECISION = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}


def make_fabric(*, accelerator: str, devices: int, nodes: int, precision: str) -> Fabric:
    """Fabric on ``devices`` of each of ``nodes``. Raises InputError if this machine cannot provide it.

    Args:
        accelerator: auto, cpu, cuda or mps.
        precision: auto, bf16, fp16 or fp32. auto is bf16 if the processor multiplies it natively, else fp32. On CUDA,
            fp32 multiplies in TF32: products of 10-bit mantissas, added up in float32.
    """
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise InputError("train.accelerator: no CUDA device here; use train.accelerator=auto")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise InputError("train.accelerator: no MPS device here; use train.accelerator=auto")
    if distributed.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) != devices * nodes:
        raise InputError(
            f"train.devices: torchrun has started {os.environ['WORLD_SIZE']} processes, but train.devices={devices} "
            f"and train.nodes={nodes}; set them to its --nproc-per-node and --nnodes"
        )
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not _has_accelerator())
    if on_cpu and precision == "fp16":
        raise InputError("train.precision: fp16 needs a GPU; use bf16 or fp32")
    chosen: Any = _PRECISION[best_precision(on_cpu) if precision == "auto" else precision]
    # Fabric writes its precision and processes to stderr, though they are no warnings.
    for name in ("lightning_fabric", "lightning_fabric.utilities.rank_zero", "lightning_fabric.utilities.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*all_gather is deprecated.*")  # Fabric itself calls it
    warnings.filterwarnings("ignore", message=".*broadcast_buffers.*deprecated.*")  # its successor is too new
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            # Every step ends with equal buffers in all processes, so no forward pass has to send them.
            strategy=DDPStrategy(broadcast_buffers=False) if devices * nodes > 1 else "auto",
            precision=chosen,
        )
    if fabric.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    return fabric


def _has_accelerator() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def best_precision(on_cpu: bool) -> str:
    """bf16 if the processor multiplies it natively, else fp32."""
    if on_cpu:
        tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = any(getattr(torch.cpu, test, lambda: False)() for test in tests)
    else:
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16" if native else "fp32"


@contextmanager
def threads_on_cores(fabric: Fabric) -> Iterator[None]:
    """On a CPU, give each computing thread a core of its own, if there are as many threads as cores.

    The threads of a network wait for each other thousands of times a step. Where two trainings share the cores, threads
    that move often wait for one that does not run; bound ones run at the same time. The numbers stay the same.
    """
    threads = computing_threads() if fabric.device.type == "cpu" and fabric.world_size == 1 else ()
    if threads and len(threads) + 1 == len(own_cores()):
        with bound(threads):
            yield
    else:
        yield


def computing_threads() -> Sequence[int]:
    """The threads that torch computes with, besides this one; empty if they cannot be told from others.

    They start with the first large computation, so this is to be called before one.
    """
    global _computing  # noqa: PLW0603
    if not _computing:
        before, count = own_threads(), torch.get_num_threads()
        torch.zeros(2 * _GRAIN * count).add_(1)
        new = sorted(own_threads() - before)
        _computing = new if len(new) == count - 1 else ()
    return _computing


def precision_of(fabric: Fabric) -> str:
    """The precision in use, by its name in :func:`make_fabric`."""
    names = {value: name for name, value in _PRECISION.items()}
    return names[str(fabric._precision.precision)]


def is_main_process() -> bool:
    """Whether this is the main process. The other processes of a distributed run print nothing."""
    # Before Fabric starts, nothing but the environment tells the machines apart.
    first_machine = os.environ.get("NODE_RANK", "0") in ("", "0")
    return getattr(rank_zero_only, "rank", 0) == 0 and first_machine


def share_keys(fabric: Fabric) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A function that concatenates the keys of all processes, so that all banks are the same."""

    def gather(keys: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        all_keys, all_keep = fabric.all_gather(keys), fabric.all_gather(keep)
        return (
            all_keys.transpose(0, 1).flatten(1, 2),  # type: ignore[union-attr]
            all_keep.transpose(0, 1).flatten(1, 2),  # type: ignore[union-attr]
        )

    return gather


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of the tensors of all processes. Unlike Fabric's, it has no barrier, for which the host would wait."""
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    if distributed.is_initialized():
        distributed.all_reduce(total)
    return total


def mean_over_processes(tensor: Tensor) -> Tensor:
    """The average of the tensors of all processes."""
    total = sum_over_processes(tensor)
    return total / distributed.get_world_size() if distributed.is_initialized() else total


def share_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with batch normalisation over the images of all processes. Its tensors stay the same objects.

    On CUDA it is torch's :class:`torch.nn.SyncBatchNorm`, which other devices do not have. Layers in evaluation mode
    are frozen and stay as they are.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if not isinstance(child, _BatchNorm) or not child.training:
                continue
            if device.type == "cuda":  # timm's function is like torch's, but layers with an activation keep it
                setattr(module, name, convert_sync_batchnorm(child))
            else:
                SharedBatchNorm2d.adopt(child, sum_over_processes)
    return network
