"""The command `u2pl distill`: the model of a finished run labels all unlabeled images, and a student trains on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_fabric import Fabric
from rich.console import Console
from torch import nn

from u2pl.auto.resolving import as_begun
from u2pl.build import build_source, image_prior_parameters
from u2pl.build.trained import WEIGHTS_SUFFIX
from u2pl.commands.checks import crop_sides, fabric_of, with_fitting_workers
from u2pl.commands.prepare import Parts, prepared
from u2pl.commands.pseudo_masks import TEACHER, Labelling, made_by, refuse_other_teacher, write_pseudo_masks
from u2pl.commands.run_folder import check_folder, claimed, require_finished
from u2pl.commands.train import scorer, train
from u2pl.config.overrides import load_saved
from u2pl.config.schema import Config, TrainConfig
from u2pl.data.loading import refuse_import
from u2pl.engine.evaluate import Scores
from u2pl.engine.launching import ending_together, under_torchrun
from u2pl.engine.machine import computing_threads, is_main_process
from u2pl.engine.parameter_count import inference_parameters
from u2pl.engine.run import Watcher
from u2pl.errors import InputError
from u2pl.networks.image_classifier import ImageClassifier
from u2pl.paths import is_file
from u2pl.predictor import Predictor
from u2pl.report.printing import print_line

#: The folder of pseudo-masks in the folder of the student.
PSEUDO_MASKS = "pseudo_masks"
#: Keys of `data` that a student may change. The others decide what classes and images are.
_DATA = (
    *("root", "labeled", "unlabeled", "val", "train", "pseudo_share", "rare_class_sampling"),
    *("cache", "workers", "timeout"),
)


@dataclass(frozen=True)
class Model:
    """One of the two models."""

    name: str  #: teacher or student
    network: str
    scores: Scores | None  #: on the validation set, as the student is evaluated; None without one
    parameters: int  #: in use


@dataclass(frozen=True)
class Distilled:
    """A finished distillation."""

    folder: Path
    models: tuple[Model, ...]  #: teacher and student; empty in processes other than the first


@ending_together()
def distill(
    run: Path,
    out: Path,
    overrides: Sequence[str] = (),
    *,
    weights: str = "last",
    labelling: Labelling = Labelling(),
    progress: Callable[[int, int], None] = lambda done, total: None,
    watchers: tuple[Watcher, ...] = (),
    say: Callable[[str], None] = print_line,
    console: Console | None = None,
    verbose: bool = False,
) -> Distilled:
    """Label the unlabeled images of the run's data with its model, and train a student into the run folder ``out``.

    The student has the configuration of the run with ``method.name=supervised``, and begins as the run did. Half of the
    images of a step have their own labels, half pseudo-masks (``data.pseudo_share``; why is in
    :class:`u2pl.data.batches.Batches`). Pseudo-masks are in ``out/pseudo_masks``, which the student's configuration
    names as ``data.pseudo_masks``: `u2pl train` understands it, too. Called again with the same arguments, a command
    that was stopped goes on, and one that has finished scores its models again.

    Args:
        run: a finished run folder.
        overrides: keys of the student's configuration.
        weights: of the teacher, ``last`` or ``best``.
        progress: of the labelling, called with (images done, images to do).
        watchers, say, console, verbose: see :func:`u2pl.commands.train.train`.

    Raises InputError before anything is written if the run, its data, the student or the folder cannot be used.
    """
    refuse_import()
    computing_threads()
    if under_torchrun():
        raise InputError("u2pl distill: labels with one process, so start it without torchrun; set train.devices")
    config = student_config(run, out, overrides)
    resume = (out / "config.yaml").exists()
    # Other processes of the training begin when all images are labeled, and call this function, too.
    parts, teacher = None, None
    if is_main_process():
        parts, teacher = labeled_by_teacher(run, config, out, weights, labelling, say=say, progress=progress)
    trained = train(config, out, resume=resume, watchers=watchers, say=say, console=console, verbose=verbose)
    if parts is None or teacher is None:
        return Distilled(out, ())
    scores = list(trained.scores.values())[-1] if trained.scores else None
    student = Model("student", _described(parts.config), scores, _parameters(parts.config, parts.network))
    return Distilled(out, (teacher, student))


def student_config(run: Path, out: Path, overrides: Sequence[str]) -> Config:
    """The student's configuration. Raises InputError if the run is none, and for keys that a student cannot change."""
    saved = run / "config.yaml"
    if run.suffix == WEIGHTS_SUFFIX or not is_file(saved):
        raise InputError(f"{run} is no run folder: config.yaml is missing; give one made by `u2pl train`")
    if out.resolve().is_relative_to(run.resolve()):
        raise InputError(f"--out {out}: is the folder of the teacher, or in it; choose another folder")
    for key in (each.partition("=")[0] for each in overrides):
        section, _, name = key.partition(".")
        name = name.removeprefix("source.").removeprefix("target.").partition(".")[0]
        if key == "seed" or (section == "data" and name not in _DATA):
            raise InputError(
                f"{key}: a student has the classes and images of its teacher; leave it out, or train with it "
                f"(of data, a student may change {', '.join(_DATA)})"
            )
    config = load_saved(saved, ["method.name=supervised", "method.diagnose=false", *overrides])
    if config.train.nodes > 1:
        raise InputError("train.nodes: u2pl distill labels on one machine; set train.nodes=1")
    return config.with_values({"data.pseudo_masks": str(out / PSEUDO_MASKS)})


def labeled_by_teacher(
    run: Path,
    config: Config,
    out: Path,
    weights: str,
    labelling: Labelling,
    *,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> tuple[Parts, Model]:
    """Check everything, let the teacher label all unlabeled images, and score it.

    Returns the parts of the student's training, and the teacher.
    """
    require_finished(run)
    predictor = Predictor.from_run(
        run,
        weights=weights,
        device=_alone(config.train).device,
        overrides=labelling.overrides(),
        precision=labelling.precision,
    )
    predictor.scale = 1.0  # samples are already scaled
    teacher, folder = made_by(run / f"{weights}{WEIGHTS_SUFFIX}", labelling, predictor), out / PSEUDO_MASKS
    refuse_other_teacher(folder, teacher)
    if (out / "config.yaml").exists() and not (folder / TEACHER).exists():
        raise InputError(f"--out {out}: holds a run that is no student of `u2pl distill`; choose another")
    parts = checked_student(config, out, predictor.classes, run, say)
    samples = parts.source.unlabeled
    with claimed(out):
        write_pseudo_masks(predictor, samples, folder, teacher, say=say, progress=progress)
    loading, scores = with_fitting_workers(parts.config, parts.inspection, say), None
    if parts.source.val:
        scores = scorer(_alone(parts.config.train), loading, parts.source, predictor.image_prior)(predictor.network)
        say(f"teacher: {scores.miou:.1f} mIoU")
    before = load_saved(run / "config.yaml")
    parameters = _parameters(before, predictor.network, predictor.image_prior)
    return parts, Model("teacher", _described(before), scores, parameters)


def checked_student(config: Config, out: Path, classes: Sequence[str], run: Path, say: Callable[[str], None]) -> Parts:
    """The parts of the student's training, without pseudo-masks. Raises InputError for what cannot be used."""
    config = as_begun(config, out)
    source = build_source(config.data.model_copy(update={"pseudo_masks": None}), seed=config.seed)
    if source.classes != tuple(classes):
        raise InputError(
            f"data: its classes ({', '.join(source.classes)}) are not those of {run} ({', '.join(classes)}); give the "
            "data set that the run was trained on"
        )
    if not source.unlabeled:
        raise InputError(f"{run}: its data have no unlabeled image to label; add images without masks, or label fewer")
    parts = prepared(config, say, source=replace(source, pseudo=source.unlabeled))
    check_folder(out, parts.config, resume=True)
    return parts


def _alone(train: TrainConfig) -> Fabric:
    """The device of a training, for this process alone."""
    return fabric_of(train.model_copy(update={"devices": 1, "nodes": 1}))


def _described(config: Config) -> str:
    return f"{config.network.name} {config.network.encoder}"


def _parameters(config: Config, network: nn.Module, prior: ImageClassifier | None = None) -> int:
    """Parameters in use, with those of an image prior."""
    height, width = crop_sides(config)
    plain = inference_parameters(network, height=height, width=width)
    return plain + image_prior_parameters(config, network, prior)
