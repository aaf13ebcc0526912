"""Configuration -> network, optimiser, scheduler and inference."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from u2pl.config.part import accepted
from u2pl.config.schema import Config, EvaluationConfig, TrainConfig
from u2pl.engine.inference import Inference, inference
from u2pl.engine.parameter_groups import parameter_groups
from u2pl.networks import NETWORKS

CPU = torch.device("cpu")


def build_network(config: Config, num_classes: int) -> nn.Module:
    """The network. It has a projection head or a classification head only if the method trains that head."""
    builder: Any = NETWORKS[config.network.name]
    options = config.network.model_dump(exclude={"name", "embedding_dim", "start_from", "freeze"}, exclude_none=True)
    options = accepted(builder, options, f"network.name={config.network.name}", "network")
    dim = config.network.embedding_dim if config.method.trains_embeddings else None
    classification = config.method.kind.uses_tags
    network = builder(num_classes=num_classes, embedding_dim=dim, classification=classification, **options)
    if config.network.freeze is not False:
        network.freeze(config.network.freeze)
    return network


def build_optimizer(train: TrainConfig, network: Any, device: torch.device = CPU) -> Optimizer:
    """SGD or AdamW, with the rates of :func:`u2pl.engine.parameter_groups.parameter_groups`.

    On CUDA, one kernel updates many weights. A run that began without this goes on without it: the choice is a part of
    the optimiser's state.
    """
    groups = parameter_groups(
        network,
        lr=train.lr,
        head_lr_factor=train.head_lr_factor,
        weight_decay=train.weight_decay,
        layer_decay=train.layer_decay,
    )
    fused = True if device.type == "cuda" else None
    if train.optimizer == "adamw":
        return AdamW(groups, fused=fused)
    return SGD(groups, momentum=train.momentum, fused=fused)


def build_scheduler(train: TrainConfig, optimizer: Optimizer) -> LambdaLR:
    """Poly decay, ``(1 - t/T) ** power``, after a linear rise over ``lr_warmup`` steps."""

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / (train.lr_warmup + 1))
        return rise * max(0.0, 1 - step / train.steps) ** train.power

    return LambdaLR(optimizer, factor)


def build_inference(evaluation: EvaluationConfig, prior: nn.Module | None = None) -> Inference:
    """How a trained network processes a whole image. ``prior`` is the image prior, if the run has one."""
    return partial(inference, **evaluation.model_dump(), prior=prior)
