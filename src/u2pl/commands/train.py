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

from u2pl.auto.resolving import as_begun
from u2pl.build import (
    build_batches,
    build_diagnosis,
    build_image_prior,
    build_inference,
    build_scheduler,
)
from u2pl.build.tracker import build_tracker
from u2pl.build.trained import IMAGE_PRIOR
from u2pl.commands.checks import crop_sides, with_fitting_workers
from u2pl.commands.overview import parameters_text, print_overview
from u2pl.commands.prepare import Parts, measured, prepared
from u2pl.commands.remedies import WHOLE_IMAGES, out_of_memory_is_bad_input
from u2pl.commands.report import report_training
from u2pl.commands.run_folder import (
    check_data,
    check_folder,
    claimed,
    groups_of,
    make_folder,
    network_description,
    require_state,
    save_areas,
    save_diagnosis,
    save_pictures,
)
from u2pl.config.schema import Config
from u2pl.data.batches import Evaluation
from u2pl.data.fingerprint import fingerprint
from u2pl.data.loading import loader, refuse_import
from u2pl.data.source import DataSource
from u2pl.engine.compiling import compile_networks, compiler_errors_are_bad_input
from u2pl.engine.evaluate import Scores, evaluate
from u2pl.engine.fit import fit
from u2pl.engine.launching import ending_together, launch
from u2pl.engine.machine import computing_threads, is_main_process, share_batch_norm, threads_on_cores
from u2pl.engine.resume import has_state
from u2pl.engine.run import Run, Watcher
from u2pl.engine.unreached import freeze_unreached
from u2pl.methods import Schedule
from u2pl.pixels.views import views_of
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
    reports: bool = True,
) -> Trained:
    """Train ``config`` into the folder ``out``.

    With ``resume``, a stopped run continues from its last save and reaches the same weights as without the stop. Raises
    InputError before training if the data, the configuration or the folder cannot be used.

    Args:
        watchers: receive the progress.
        say: called with lines of text about the progress.
        console: prints warnings, a table of the data and a table of the choices; None: no such overview.
        verbose: print the full reasons of each choice; ``choices.txt`` in the run folder always has them.
        reports: write ``report.html`` at the end.
    """
    refuse_import()
    computing_threads()  # before anything is computed
    asked = as_begun(config, out) if resume else config
    parts = prepared(asked, say, begins=not (resume and has_state(out)))
    config, source, fabric = parts.config, parts.source, parts.fabric
    check_folder(out, config, resume=resume)
    with claimed(out) if is_main_process() else nullcontext():
        check_folder(out, config, resume=resume)  # again: now no other process can write there
        require_state(out)
        check_data(out, config, fingerprint(source))
        launch(fabric)  # other processes begin here, so only the first one reports bad input
        parts = measured(parts, asked, say if fabric.is_global_zero else _silent)
        config = parts.config
        if fabric.is_global_zero:
            make_folder(out, config, parts.choices)
            if console is not None:
                print_overview(console, config, parts.inspection, source.classes, parts.choices, verbose=verbose)
            say(describe(config, source, parts.network))
        fabric.barrier()
        own = watchers if fabric.is_global_zero else ()
        scores = trained(parts, out, resume=resume, watchers=own, say=say if fabric.is_global_zero else _silent)
        if fabric.is_global_zero and source.val:
            save_areas(out, scores, fingerprint(source), groups_of(source))
            save_pictures(out, source)
        if fabric.is_global_zero and config.method.diagnose:
            save_diagnosis(out, source)
        if fabric.is_global_zero and reports:
            report_training(out, source, say)
    return Trained(out, source, scores)


def trained(
    parts: Parts, out: Path, *, resume: bool, watchers: tuple[Watcher, ...], say: Callable[[str], None]
) -> dict[str, Scores]:
    """Train the parts in this process and the others. Returns the scores at the end."""
    fabric, source, method = parts.fabric, parts.source, parts.method
    fabric.to_device(method)
    config = with_fitting_workers(parts.config, parts.inspection, say)
    prior = build_image_prior(
        config,
        source,
        parts.network,
        fabric,
        resumed=out if resume and has_state(out) else None,
        say=None if say is _silent else say,
    )
    draw: dict[str, Any] = {
        "semi_supervised": method.semi_supervised,
        "rank": fabric.global_rank,
        "world_size": fabric.world_size,
        "rare_classes": parts.rare_classes,
        "priors": None if prior is None else prior.unlabeled,
    }
    classifier = None if prior is None else prior.classifier
    network = parts.network if fabric.world_size == 1 else for_processes(config, parts.network, fabric)
    if config.train.compile:
        compile_networks(network, method)
    student, optimizer = fabric.setup(network, parts.optimizer)
    with out_of_memory_is_bad_input(), compiler_errors_are_bad_input(), threads_on_cores(fabric):
        return fit(
            fabric,
            run_of(config, out, source, watchers, classifier, say),
            student=student,
            method=method,
            optimizer=optimizer,
            scheduler=build_scheduler(config.train, optimizer),
            batches=build_batches(config, source, **draw, device=fabric.device),
            views=views_of,
            score=scorer(fabric, config, source, classifier) if source.val else None,
            diagnosis=build_diagnosis(config, source, **draw) if config.method.diagnose else None,
            resume=resume,
        )


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
        warmup=compared_warmup(config),
        save_every=train.save_every,
        log_every=train.log_every,
        watchers=list(watchers),
        groups=groups_of(source),
        data=fingerprint(source),
        say=say,
        tracker=build_tracker(config, say),
        confidence="method.threshold" if config.method.kind.has_threshold else "method.reliability.min_confidence",
    )


def compared_warmup(config: Config) -> int:
    """Steps of the warm-up after which the student is compared; 0: it is not, as there is no warm-up on labels.

    With ``train.eval_every=0`` there is one validation, at the end.
    """
    kind, train = config.method.kind, config.train
    if not kind.has_teacher or kind.has_threshold or kind.uses_tags or not train.eval_every:
        return 0
    schedule = Schedule(**dict(config.method.schedule))
    warmup = sum(schedule.is_warmup(step / train.steps) for step in range(train.steps))
    return warmup if warmup < train.steps else 0


def describe(config: Config, source: DataSource, network: nn.Module) -> str:
    """One line about the training that begins."""
    of_target = f" ({source.target_labeled} of the target)" if source.target_labeled else ""
    pseudo = f", {len(source.pseudo)} pseudo-labeled" if source.pseudo else ""
    return (
        f"{config.method.name} on {config.data.name}: {len(source.labeled)} labeled{of_target}{pseudo}, "
        f"{len(source.unlabeled)} unlabeled, {len(source.val)} validation images, {len(source.classes)} classes; "
        f"{config.network.name} {config.network.encoder}, {parameters_text(network)}; "
        f"{config.train.steps} steps in {config.train.precision}{', compiled' * config.train.compile}"
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
        with out_of_memory_is_bad_input(WHOLE_IMAGES, where="in validation"):
            counted = evaluate(fabric, network, images, len(classes), inference=inference)
        return Scores.from_counted(counted, classes)

    return score
