"""How far a teacher of these labels can be believed: measured on labeled images that short trainings leave out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.auto.facts import Precision
from u2pl.build import (
    build_batches,
    build_class_share,
    build_diagnosis,
    build_image_prior,
    build_method,
    build_network,
    build_optimizer,
    build_scheduler,
    start,
)
from u2pl.config.schema import Config
from u2pl.data.batches import step_seed
from u2pl.data.source import DataSource, Sample
from u2pl.engine.machine import threads_on_cores
from u2pl.methods.diagnosis import class_counts
from u2pl.methods.u2pl import U2PL
from u2pl.pixels.views import views_of
from u2pl.structures import IGNORE_INDEX, PseudoLabel

FEW, FOLDS, HELD_OUT = 50, 3, 5  # below 50 labels three trainings, each without a third; else one, without a fifth
CONFIDENT = 0.95  # FixMatch's threshold
_SEEN = 1e-3  # share of the confident pixels from which on a class counts
_INIT_STREAM, _ORDER_STREAM = 6, 7  # random numbers apart from those of the training


def measured_precision(
    config: Config, source: DataSource, fabric: Fabric, *, steps: int, say: Callable[[str], None]
) -> Precision:
    """Train on a part of the labels for ``steps`` steps in all, and compare pseudo-labels of the rest with its masks.

    The pseudo-labels are those of the method: of weak views, with its refiners and its image prior. Nothing of these
    trainings is kept but the numbers. Several processes compute the same, and use those of the first.

    Args:
        config: complete, of a method with an average teacher.
        steps: divided among the trainings, see :func:`folds`.
        say: called with a line of progress before each training.
    """
    totals = torch.zeros(3, len(source.classes), dtype=torch.long)
    parts = list(folds(source.labeled, seed=config.seed))
    steps = max(1, steps // len(parts))
    for number, (rest, held_out) in enumerate(parts, start=1):
        say(
            f"auto: measuring pseudo-labels: training {number} of {len(parts)}, {steps} steps on {len(rest)} labels, "
            f"{len(held_out)} held out"
        )
        part = replace(source, labeled=rest, unlabeled=held_out)
        here = [fabric.device] if fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices=here), threads_on_cores(fabric):
            for pseudo, truth in pseudo_labels(config, part, fabric, steps=steps):
                known = pseudo.valid & (truth != IGNORE_INDEX)
                sure = known & (pseudo.confidence >= CONFIDENT)
                sets = (sure & (pseudo.label == truth), sure, known)
                totals += torch.stack([class_counts(pseudo.label, where, len(source.classes)) for where in sets]).cpu()
    right, sure, known = totals.double()
    shown = sure > _SEEN * sure.sum()
    by_class = right[shown] / sure[shown]
    numbers = by_class.sum() / max(1, len(by_class)), sure.sum() / known.sum().clamp(min=1)
    precision, share = fabric.broadcast([float(number) for number in numbers])
    return Precision(precision, share, images=sum(len(held_out) for _, held_out in parts))


def folds(labeled: Sequence[Sample], *, seed: int) -> Iterator[tuple[list[Sample], list[Sample]]]:
    """Labels to train on and labels to hold out.

    From 50 labels on once, with a fifth held out; with fewer three times, so that each is held out once.
    """
    order = torch.randperm(len(labeled), generator=torch.Generator().manual_seed(step_seed(seed, _ORDER_STREAM)))
    count, parts = (1, HELD_OUT) if len(labeled) >= FEW else (FOLDS, FOLDS)
    for fold in range(count):
        held_out = set(order[fold::parts].tolist())
        yield (
            [sample for index, sample in enumerate(labeled) if index not in held_out],
            [sample for index, sample in enumerate(labeled) if index in held_out],
        )


def pseudo_labels(
    config: Config, part: DataSource, fabric: Fabric, *, steps: int
) -> Iterator[tuple[PseudoLabel, Tensor]]:
    """Train on the labels, and yield pseudo-labels of unlabeled images with their true classes (B, H, W) int64."""
    torch.manual_seed(step_seed(config.seed, _INIT_STREAM))
    network = build_network(config, len(part.classes))
    start(network, config, part.classes)
    network = network.to(fabric.device)
    if config.train.channels_last:
        network = network.to(memory_format=cast(Any, torch.channels_last))
    prior = build_image_prior(config, part, network, fabric)
    method = built(config, part, network).to(fabric.device)
    optimizer = build_optimizer(config.train, network, fabric.device)
    scheduler = build_scheduler(config.train, optimizer)
    draw: dict[str, Any] = {"rank": 0, "world_size": 1, "priors": None if prior is None else prior.unlabeled}
    labels = build_batches(shortened(config, steps), part, semi_supervised=False, device=fabric.device, **draw)
    weights = dict(config.method.loss_weights)
    network.train()
    for crops in labels(0):
        with fabric.autocast():
            losses = method.warmup_step(network, views_of(fabric.to_device(crops)))
        torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    method.teacher.start(network)
    method.eval()
    for crops in build_diagnosis(config, part, semi_supervised=True, **draw).batches():
        batch = views_of(fabric.to_device(crops))
        with torch.no_grad(), fabric.autocast():
            pseudo = method.make_pseudo_labels(method.teacher_pass(batch), batch)
        assert batch.truth is not None
        yield pseudo, batch.truth


def built(config: Config, part: DataSource, network: nn.Module) -> U2PL:
    """The method, which must have an average teacher."""
    method = build_method(
        config.method,
        network,
        num_classes=len(part.classes),
        embedding_dim=config.network.embedding_dim,
        class_share=build_class_share(config.method, part),
    )
    assert isinstance(method, U2PL)
    return method


def shortened(config: Config, steps: int) -> Config:
    """The configuration with fewer steps, of the batches only."""
    return config.model_copy(update={"train": config.train.model_copy(update={"steps": steps})})
