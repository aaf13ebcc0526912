"""The command `u2pl train`: train a configuration into a run folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    build_optimizer,
    build_rare_classes,
    build_scheduler,
    build_source,
)
from u2pl.commands.checks import check_source, checked_network, crop_sides, fabric_of, with_fitting_workers
from u2pl.commands.overview import print_overview
from u2pl.commands.remedies import WHOLE_IMAGES, out_of_memory_is_bad_input
from u2pl.commands.run_folder import (
    check_data,
    check_folder,
    claimed,
    make_folder,
    network_description,
    require_state,
    save_diagnosis,
    save_pictures,
)
from u2pl.config.schema import Config
from u2pl.data.batches import Evaluation
from u2pl.data.fingerprint import fingerprint
from u2pl.data.loading import loader, refuse_import
from u2pl.data.source import DataSource
from u2pl.engine.evaluate import Scores, evaluate
from u2pl.engine.fit import Run, Watcher, fit
from u2pl.engine.launching import ending_together, launch
from u2pl.engine.machine import is_main_process, share_batch_norm, share_keys, sum_over_processes
from u2pl.engine.unreached import freeze_unreached
from u2pl.predictor import IMAGE_PRIOR
from u2pl.report.printing import print_line


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    folder: Path
    source: DataSource
    scores: dict[str, Scores]  #: of the student and, if there is one, the teacher; the last is the model to use


@ending_together()
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
    refuse_import()
    config = as_begun(config, out) if resume else config
    fabric = fabric_of(config.train)
    source = build_source(config.data, seed=config.seed)
    config, source, choices = resolved(config, source, fabric)
    inspection = check_source(source, config, say)
    rare_classes = build_rare_classes(config.data, source, say=say)
    class_share = build_class_share(config.method, source, say=say)
    network = checked_network(config, source, fabric)
    optimizer = build_optimizer(config.train, network)
    processes = config.train.devices * config.train.nodes
    with out_of_memory_is_bad_input("lower method.contrast.bank_size"):
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
    check_folder(out, config, resume=resume)
    with claimed(out) if is_main_process() else nullcontext():
        check_folder(out, config, resume=resume)  # again: now no other process can write there
        require_state(out)
        check_data(out, config, fingerprint(source))
        launch(fabric)  # other processes begin here, so only the first one reports bad input
        if fabric.is_global_zero:
            make_folder(out, config, choices)
            if console is not None:
                print_overview(console, config, inspection, source.classes, choices, verbose=verbose)
            say(describe(config, source, network))
        fabric.barrier()
        fabric.to_device(method)
        tell = say if fabric.is_global_zero else _silent
        config = with_fitting_workers(config, inspection, tell)
        prior = build_image_prior(config, source, network, fabric, say=tell if fabric.is_global_zero else None)
        draw: dict[str, Any] = {
            "semi_supervised": method.semi_supervised,
            "rank": fabric.global_rank,
            "world_size": fabric.world_size,
            "rare_classes": rare_classes,
            "priors": None if prior is None else prior.unlabeled,
        }
        classifier = None if prior is None else prior.classifier
        network = network if processes == 1 else for_processes(config, network, fabric)
        student, optimizer = fabric.setup(network, optimizer)
        with out_of_memory_is_bad_input():
            scores = fit(
                fabric,
                run_of(config, out, source, watchers if fabric.is_global_zero else (), classifier, tell),
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


def for_processes(config: Config, network: nn.Module, fabric: Fabric) -> nn.Module:
    """The network as several processes train it: with shared batch normalisation, and no weight that gets no gradient.

    Its tensors stay the same objects.
    """
    height, width = crop_sides(config)
    freeze_unreached(network, height=height, width=width)
    return share_batch_norm(network, fabric.device) if config.train.sync_batch_norm else network


def _silent(line: str) -> None:
    """What processes other than the first say."""


def run_of(
    config: Config,
    out: Path,
    source: DataSource,
    watchers: tuple[Watcher, ...],
    classifier: nn.Module | None = None,
    say: Callable[[str], None] = _silent,
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
        data=fingerprint(source),
        say=say,
    )


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
            Evaluation(source.val),
            start=fabric.global_rank,
            stride=fabric.world_size,
            workers=config.data.workers,
            timeout=config.data.timeout,
        )
        with out_of_memory_is_bad_input(f"in validation; {WHOLE_IMAGES}"):
            confusion = evaluate(fabric, network, images, len(classes), inference=inference)
        return Scores.from_confusion(confusion, classes)

    return score
