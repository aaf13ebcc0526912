"""The command `u2pl train`: train a configuration into a run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import nn

from u2pl.auto.resolving import as_begun, resolved
from u2pl.build import (
    build_batches,
    build_class_share,
    build_diagnosis,
    build_image_prior,
    build_inference,
    build_method,
    build_negative_keys,
    build_network,
    build_optimizer,
    build_rare_classes,
    build_scheduler,
    build_source,
    check_image_prior,
)
from u2pl.commands.overview import print_overview, reading
from u2pl.commands.run_folder import check_folder, make_folder, network_description, save_diagnosis, save_pictures
from u2pl.config.schema import Config, TrainConfig
from u2pl.data.batches import Evaluation, loader, step_seed
from u2pl.data.inspection import Inspection, verify
from u2pl.data.source import DataSource
from u2pl.engine.evaluate import Scores, evaluate
from u2pl.engine.fit import Run, Watcher, fit
from u2pl.engine.machine import make_fabric, share_batch_norm, share_keys, sum_over_processes
from u2pl.engine.memory import require_memory
from u2pl.errors import InputError
from u2pl.predictor import IMAGE_PRIOR
from u2pl.report.printing import print_line

_INIT_STREAM = 2  # the random numbers of the network's initial weights
_THOROUGH = 2000  # data sets with at most this many images are decoded before training starts


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    folder: Path
    source: DataSource
    scores: dict[str, Scores]  #: of the student and, if there is one, the teacher; the last is the model to use


def train(
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    watchers: tuple[Watcher, ...] = (),
    say: Callable[[str], None] = print_line,
    console: Console | None = None,
    verbose: bool = False,
) -> Trained:
    """Train ``config`` into the folder ``out``.

    With ``resume``, a stopped run continues from its last save and reaches the same weights as without the stop. Raises
    InputError before training if the data, the configuration or the folder cannot be used.

    Args:
        watchers: receive the progress.
        say: called with lines of text about the progress.
        console: prints warnings, a table of the data and a table of the choices; None: no such overview.
        verbose: print the full reasons of each choice; ``choices.txt`` in the run folder always has them.
    """
    config = as_begun(config, out) if resume else config
    fabric = fabric_of(config.train)
    source = build_source(config.data, seed=config.seed)
    config, source, choices = resolved(config, source, fabric)
    inspection = check_source(source, config, say)
    rare_classes = build_rare_classes(config.data, source, say=say)
    class_share = build_class_share(config.method, source, say=say)
    network = checked_network(config, source, fabric)
    optimizer = build_optimizer(config.train, network)
    check_folder(out, config, resume=resume)
    processes = config.train.devices * config.train.nodes
    with out_of_memory_is_bad_input("method.contrast.bank_size"):
        method = build_method(
            config.method,
            network,
            num_classes=len(source.classes),
            embedding_dim=config.network.embedding_dim,
            class_share=class_share,
            gather=share_keys(fabric) if processes > 1 else None,
            total=sum_over_processes if processes > 1 else None,
            processes=processes,
        )
    fabric.launch()  # other processes begin here, so only the first one reports bad input
    if fabric.is_global_zero:
        make_folder(out, config, choices)
        if console is not None:
            print_overview(console, config, inspection, source.classes, choices, verbose=verbose)
        say(describe(config, source, network))
    fabric.barrier()
    fabric.to_device(method)
    prior = build_image_prior(config, source, network, fabric, say=say if fabric.is_global_zero else None)
    draw: dict[str, Any] = {
        "semi_supervised": method.semi_supervised,
        "rank": fabric.global_rank,
        "world_size": fabric.world_size,
        "rare_classes": rare_classes,
        "priors": None if prior is None else prior.unlabeled,
    }
    classifier = None if prior is None else prior.classifier
    if processes > 1 and config.train.sync_batch_norm:
        network = share_batch_norm(network, fabric.device)
    student, optimizer = fabric.setup(network, optimizer)
    with out_of_memory_is_bad_input():
        scores = fit(
            fabric,
            run_of(config, out, source, watchers if fabric.is_global_zero else (), classifier),
            student=student,
            method=method,
            optimizer=optimizer,
            scheduler=build_scheduler(config.train, optimizer),
            batches=build_batches(config, source, **draw),
            score=scorer(fabric, config, source, classifier) if source.val else None,
            diagnosis=build_diagnosis(config, source, **draw) if config.method.diagnose else None,
            resume=resume,
        )
    if fabric.is_global_zero and source.val:
        save_pictures(out, source)
    if fabric.is_global_zero and config.method.diagnose:
        save_diagnosis(out, source)
    return Trained(out, source, scores)


def fabric_of(train: TrainConfig) -> Fabric:
    """The devices and the precision of a configuration."""
    return make_fabric(
        accelerator=train.accelerator, devices=train.devices, nodes=train.nodes, precision=train.precision
    )


def check_source(source: DataSource, config: Config, say: Callable[[str], None] = print_line) -> Inspection:
    """Inspect the data set. Raises InputError if it cannot be trained on."""
    semi_supervised = config.method.kind.semi_supervised
    if config.method.uses_negative_keys and len(source.classes) > 1:  # else it is an error of the data
        build_negative_keys(config.method, len(source.classes))
    images = len(source.labeled) + len(source.val) + len(source.unlabeled) * semi_supervised
    weak = config.method.kind.uses_tags
    return verify(
        source, semi_supervised=semi_supervised, weak=weak, thorough=images <= _THOROUGH, progress=reading(say)
    )


def checked_network(config: Config, source: DataSource, fabric: Fabric) -> nn.Module:
    """The network with its initial weights, after a check that a step can fit the device's memory."""
    check_image_prior(config)
    torch.manual_seed(step_seed(config.seed, _INIT_STREAM))
    network = build_network(config, len(source.classes))
    crop = config.train.crop_size
    height, width = (crop, crop) if isinstance(crop, int) else crop
    views = 1 + config.method.strong_views_of_an_image if config.method.kind.semi_supervised else 1
    images = config.train.batch_size * views
    if config.method.kind.uses_tags and source.labeled:  # in addition to weak and strong views
        images += config.train.batch_size
    require_memory(network, fabric.device, images=images, height=height, width=width)
    return network.to(memory_format=torch.channels_last) if config.train.channels_last else network


def run_of(
    config: Config, out: Path, source: DataSource, watchers: tuple[Watcher, ...], classifier: nn.Module | None = None
) -> Run:
    """The settings of a configuration that the engine needs."""
    train = config.train
    return Run(
        folder=out,
        steps=train.steps,
        seed=config.seed,
        loss_weights=dict(config.method.loss_weights),
        description=network_description(config, source),
        beside={} if classifier is None else {IMAGE_PRIOR: classifier},
        eval_every=train.eval_every,
        save_every=train.save_every,
        log_every=train.log_every,
        watchers=list(watchers),
    )


@contextmanager
def out_of_memory_is_bad_input(lower: str = "train.crop_size or train.batch_size") -> Iterator[None]:
    """Turn torch's out-of-memory errors into an InputError that names the keys to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch uses RuntimeError for many errors
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "allocate memory" not in str(error):
            raise
        raise InputError(f"out of memory: lower {lower}") from error


def describe(config: Config, source: DataSource, network: nn.Module) -> str:
    """One line about the training that begins."""
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    return (
        f"{config.method.name} on {config.data.name}: {len(source.labeled)} labeled, {len(source.unlabeled)} "
        f"unlabeled, {len(source.val)} validation images, {len(source.classes)} classes; "
        f"{config.network.name} {config.network.encoder}, {parameters:.1f} M parameters; "
        f"{config.train.steps} steps in {config.train.precision}"
    )


def scorer(
    fabric: Fabric, config: Config, source: DataSource, classifier: nn.Module | None = None
) -> Callable[[nn.Module], Scores]:
    """A function that evaluates a network on the validation set, which the processes share."""
    inference, classes = build_inference(config.evaluation, classifier), source.classes

    def score(network: nn.Module) -> Scores:
        images = loader(
            Evaluation(source.val), start=fabric.global_rank, stride=fabric.world_size, workers=config.data.workers
        )
        return Scores.from_confusion(evaluate(fabric, network, images, len(classes), inference=inference), classes)

    return score
