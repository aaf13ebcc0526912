"""The folder of a run: its first files, and whether the run can be resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save_file
from torch import Tensor

from u2pl.auto.choices import Choice
from u2pl.auto.resolving import LOADING
from u2pl.build.trained import WEIGHTS_SUFFIX
from u2pl.config.overrides import load_saved
from u2pl.config.schema import Config
from u2pl.data.fingerprint import difference
from u2pl.data.source import DataSource
from u2pl.engine.bootstrap import group_count
from u2pl.engine.checkpoint import write_atomically, write_text_atomically
from u2pl.engine.evaluate import Scores
from u2pl.engine.resume import CHECKPOINTS, has_state, saved_value
from u2pl.errors import InputError
from u2pl.paths import is_file
from u2pl.predictor import Predictor
from u2pl.report.diagnosis_plot import plot_diagnosis
from u2pl.report.pictures import coloured, overlay, save_panels

AREAS = (
    "validation.safetensors"  #: counts over the validation images at the end, see :class:`u2pl.engine.evaluate.Counted`
)
_PICTURES = 6
LOCK = ".lock"
#: What a training writes beside its configuration.
_OWN_FILES = (
    *("last.safetensors", "best.safetensors", AREAS, *CHECKPOINTS),
    *("metrics.jsonl", "choices.txt", "events.out.tfevents.*"),
)
#: Keys that say where the data lie.
_PLACES = ("data.root", "data.source.root", "data.target.root", "data.pseudo_masks")


def check_folder(out: Path, config: Config, *, resume: bool) -> None:
    """Raise InputError if the folder holds a run that should not, or cannot, be resumed, or files of others."""
    saved = out / "config.yaml"
    if not saved.exists():
        for name in _OWN_FILES:
            if next(out.glob(name), None) is not None:
                raise InputError(f"--out {out}: holds {name}, but is no run folder; choose another --out")
        return
    if not resume:
        raise InputError(f"{out} already holds a run; add --resume to go on with it or choose another --out")
    before, now = dict(_keys(load_saved(saved).model_dump())), dict(_keys(config.model_dump()))
    # Both are the same for all but huge images, and no weight depends on it.
    before["evaluation.protocol"] = before["evaluation.protocol"].replace("whole", now["evaluation.protocol"])
    for key in [*now, *(key for key in before if key not in now)]:
        same = before.get(key) == now.get(key) and type(before.get(key)) is type(now.get(key))  # in Python, True == 1
        if not same and key not in (*LOADING, *_PLACES):
            raise InputError(
                f"{key}: is {now.get(key)!r} now but {before.get(key)!r} in {saved}; "
                "a run resumes with the configuration it began with"
            )


def require_state(out: Path) -> None:
    """Raise InputError if a run was trained and its checkpoint removed: it cannot go on, and would begin anew."""
    if not has_state(out) and (out / "last.safetensors").exists():
        raise InputError(
            f"{out} holds the weights of a run, but no {CHECKPOINTS[0]} to go on from; `u2pl evaluate {out}` scores "
            "them, another --out trains anew"
        )


def require_finished(run: Path) -> None:
    """Raise InputError if a run has not been trained to its end. Runs whose checkpoint was removed are finished."""
    if not is_file(run / f"last{WEIGHTS_SUFFIX}"):
        raise InputError(f"{run} has no last{WEIGHTS_SUFFIX}: its training has saved nothing yet; train it to its end")
    steps = load_saved(run / "config.yaml").train.steps
    done = saved_value(run, "step") if (run / CHECKPOINTS[0]).exists() else steps
    if isinstance(steps, int) and done < steps:
        raise InputError(f"{run} is not finished: {done} of {steps} steps are done; `u2pl train` with --resume goes on")


def resume_note(out: Path) -> str | None:
    """A line for who wants to resume a run that has saved nothing; None if there is something to go on from."""
    if not (out / "config.yaml").exists():
        return f"there is no run in {out} yet: a new one begins"
    return None if has_state(out) else f"the run in {out} has saved nothing yet: it begins anew"


def check_data(out: Path, config: Config, data: Mapping[str, Any]) -> None:
    """Raise InputError if the data of a run that goes on are not those with which it began.

    A folder of data may have moved. Checkpoints of earlier versions do not say what the data were; then it may not.
    """
    saved = out / "config.yaml"
    if not saved.exists():
        return
    before = saved_value(out, "data")
    moved = [key for key in _PLACES if load_saved(saved).value(key) != config.value(key)]
    if before is None and moved and has_state(out):
        raise InputError(f"{moved[0]}: differs from {saved}, and this run of an earlier version does not name its data")
    changed = None if before is None else difference(before, data)
    if changed is not None:
        raise InputError(f"{out}: {changed}; a run goes on with the data it began with, so choose another --out")
    if moved:
        write_text_atomically(saved, config.to_yaml())


@contextmanager
def claimed(out: Path, *, does: str = "trains") -> Iterator[None]:
    """Make the folder, and keep other processes from working in it. A folder that stays empty is removed.

    Raises InputError if it cannot be made, or if another process works in it; ``does`` says what that does.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot write there ({error.strerror})") from error
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"{out}: another process {does} into this folder; wait for it, or choose another --out"
        ) from error
    except (OSError, NotImplementedError):  # a file system without locks
        pass
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):
            if [path.name for path in out.iterdir()] == [LOCK]:
                (out / LOCK).unlink()
                out.rmdir()


def _keys(sections: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Each key with its value, as ``data.source.root``."""
    for name, value in sections.items():
        if isinstance(value, dict):
            yield f"{above}{name}", True  # as against a part that is left out
            yield from _keys(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def make_folder(out: Path, config: Config, choices: Sequence[Choice] = ()) -> None:
    """Write the configuration into the run folder, unless it is there. Raises InputError if that fails.

    ``choices`` and their full reasons go into ``choices.txt``.
    """
    saved = out / "config.yaml"
    if not saved.exists():
        write_text_atomically(saved, config.to_yaml())
        if choices:
            write_text_atomically(out / "choices.txt", "".join(f"{choice}\n" for choice in choices))


def network_description(config: Config, source: DataSource) -> dict[str, Any]:
    """What is needed to rebuild the trained network, and to name and colour its classes."""
    return {
        "classes": list(source.classes),
        "palette": [list(colour) for colour in source.palette],
        "lookup": None if source.lookup is None else list(source.lookup),
        "scale": config.data.val_scale,
        "images": config.data.validated.model_dump(include={"bands", "value_range"}, exclude_none=True),
        "method": config.method.name,
        "contrast": config.method.contrast is not None,
        "network": config.network.model_dump(
            exclude={"pretrained", "weights", "start_from", "freeze"}, exclude_none=True
        ),
        "evaluation": config.evaluation.model_dump(),
    }


def groups_of(source: DataSource) -> Tensor | None:
    """(N,) int64, the numbers of the groups of the validation images; None: each is by itself."""
    groups = torch.tensor(source.val_groups, dtype=torch.long)
    return None if group_count(groups) is None else groups


def save_areas(out: Path, scores: Mapping[str, Scores], data: Mapping[str, Any], groups: Tensor | None = None) -> None:
    """``validation.safetensors``: how the model at the end does on each validation image, and its confusion matrix.

    ``data``, the fingerprint of the data set, says later which images these are, and ``groups`` which are alike.
    """
    found = list(scores.values())[-1] if scores else None
    if found is None or found.areas is None:
        return
    counts = {"areas": found.areas.contiguous()}
    if found.confusion is not None:
        counts["confusion"] = found.confusion.contiguous()
    if groups is not None:
        counts["groups"] = groups
    write_atomically(out / AREAS, partial(save_file, counts, metadata={"data": json.dumps(data)}))


def save_pictures(out: Path, source: DataSource) -> None:
    """``pictures/validation.png``: image, ground truth and prediction for evenly spread validation images."""
    trained = Predictor.from_run(out)
    predictor = Predictor(  # samples are already scaled
        trained.network, classes=trained.classes, palette=trained.palette, inference=trained.inference
    )
    rows = []
    for sample in source.val[:: -(-len(source.val) // _PICTURES)]:
        image = sample.image()
        truth, guess = coloured(sample.mask(), predictor.palette), predictor(image).mask
        rows.append((image, truth, overlay(image, guess, predictor.palette)))
    (out / "pictures").mkdir(exist_ok=True)
    save_panels(out / "pictures" / "validation.png", rows, ("image", "ground truth", "prediction"))


def save_diagnosis(out: Path, source: DataSource) -> None:
    """``pictures/diagnosis.png``: the measurements of a diagnosed run over training."""
    (out / "pictures").mkdir(exist_ok=True)
    plot = partial(plot_diagnosis, metrics=out / "metrics.jsonl", classes=source.classes)
    write_atomically(out / "pictures" / "diagnosis.png", plot)
