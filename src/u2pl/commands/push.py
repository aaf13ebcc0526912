"""The command `u2pl push`: a finished run as a repository of the Hugging Face Hub."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.utils import RepositoryNotFoundError

from u2pl.build.hub import asking_hub, check_repository
from u2pl.build.trained import WEIGHTS, WEIGHTS_SUFFIX, check_weights, read_trained
from u2pl.commands.finished_run import FinishedRun, read_run
from u2pl.commands.overview import parameters_text
from u2pl.commands.run_folder import AREAS
from u2pl.config.portable import keys_with_paths, without_paths
from u2pl.engine.checkpoint import unwritable
from u2pl.errors import InputError
from u2pl.paths import is_file
from u2pl.report.model_card import ModelCard

CARD = "README.md"
#: What a push writes, and so may replace and remove.
_OWN = (CARD, "config.yaml", "metrics.jsonl", AREAS, *(f"{name}{WEIGHTS_SUFFIX}" for name in WEIGHTS))
#: What the Hub and its users add to any repository.
_ANYBODYS = (".gitattributes", ".gitignore", "LICENSE", "LICENSE.md", "LICENSE.txt")

Files = Mapping[str, bytes | Path]  #: content, or a file with it, by name in the repository


def push(run: Path, repository: str, *, weights: str = "last", private: bool = True) -> str:
    """Push a run in one commit, and return the address of the repository, which is made if it does not exist.

    A file of an earlier push that this one does not have is removed in the same commit. Files of others stay.

    Args:
        run: a finished run folder.
        repository: ``user/name``.
        weights: ``last`` or ``best``: the weights to push.
        private: whether only its owner sees the repository. One that exists must be so already.

    Raises InputError, and pushes nothing, for a run that cannot be pushed, without a token or a connection, and for a
    repository that holds something else, or is as visible as it should not be. If the commit fails, a repository that
    was made for it stays, and the error says so: nothing on the Hub is ever deleted.
    """
    files = contents(run, repository, weights=weights)
    if get_token() is None:
        raise InputError("there is no token for the Hub; log in with `hf auth login`, or set HF_TOKEN")
    hub = HfApi(library_name="u2pl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a card without a licence
        with asking_hub(repository):
            there = _files_of(hub, repository, private=private)
            # One that another process makes meanwhile is not taken over: it may be public.
            address = str(hub.create_repo(repository, private=private, exist_ok=there is not None))
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, content) for name, content in files.items()),
            *(CommitOperationDelete(name) for name in _OWN if name in (there or ()) and name not in files),
        ]
        with telling_what_remains(address if there is None else None), asking_hub(repository):
            hub.create_commit(repository, operations, commit_message=f"{weights} weights of a training with u2pl")
    return address


@contextmanager
def telling_what_remains(made: str | None) -> Iterator[None]:
    """Context of the commit. If it fails, InputError also says that the repository ``made`` for it is still there.

    Args:
        made: the address of the repository that this push made; None: it was there before.
    """
    try:
        yield
    except InputError as error:
        if made is None:
            raise
        remains = f"an empty repository remains: push again to fill it, or delete it in the settings of {made}"
        raise InputError(f"{error}; {remains}") from error


def write_contents(run: Path, repository: str, out: Path, *, weights: str = "last") -> None:
    """Write what :func:`push` would push into a new folder. Raises InputError, and writes nothing, if it cannot."""
    if out.exists():
        raise InputError(f"--out {out}: exists already; give a new folder")
    files = contents(run, repository, weights=weights)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as partial:
            folder = Path(partial) / out.name
            folder.mkdir()
            for name, content in files.items():
                if isinstance(content, bytes):
                    (folder / name).write_bytes(content)
                else:
                    shutil.copyfile(content, folder / name)
            os.rename(folder, out)
    except OSError as error:
        raise unwritable(out, error) from error


def contents(run: Path, repository: str, *, weights: str = "last") -> Files:
    """The files of a repository: the weights, the configuration without paths, the metrics, and the model card.

    No image, no checkpoint and no path of this machine is among them. A ``README.md`` in the run folder takes the place
    of the card. Raises InputError for another name than ``user/name``, and for a run that is unfinished or damaged.
    """
    check_repository(repository)
    check_weights(weights)
    finished = read_run(run)
    file = run / f"{weights}{WEIGHTS_SUFFIX}"
    if not is_file(file):
        raise InputError(f"--weights {weights}: {run} has no {file.name}; leave it out")
    removed = list(keys_with_paths(finished.config))
    note = f"# Without the paths of {', '.join(removed)}.\n" if removed else ""
    files: dict[str, bytes | Path] = {
        "config.yaml": (note + without_paths(finished.config).to_yaml()).encode(),
        "metrics.jsonl": run / "metrics.jsonl",
        file.name: file,
    }
    if weights == "last" and is_file(run / AREAS):  # which are of these weights
        files[AREAS] = run / AREAS
    own = run / CARD
    written = own if is_file(own) else card(finished, repository, weights, files=[*files], removed=removed).encode()
    return {CARD: written, **files}


def card(run: FinishedRun, repository: str, weights: str, *, files: Sequence[str], removed: Sequence[str]) -> str:
    """The model card of a run. ``files`` are pushed with it, ``removed`` are the keys without their paths."""
    config, described = run.config, run.description["network"]
    network = read_trained(run.folder / f"{weights}{WEIGHTS_SUFFIX}", "cpu").network
    miou, iou, counted = _scores(run, weights)
    at_end = run.row()
    images = [(f"images, {key}", f"{value}") for key, value in run.description.get("images", {}).items()]
    names = {"labeled": "labeled", "unlabeled": "unlabeled", "pseudo-labeled": "pseudo-labeled", "val": "validation"}
    counts = {} if run.data is None else {name: run.data[key][0] for key, name in names.items() if key in run.data}
    semi = config.method.kind.semi_supervised
    return ModelCard(
        repository=repository,
        weights=weights,
        tags=("semantic-segmentation", *(["semi-supervised-learning"] if semi else []), run.method),
        facts=[
            ("method", run.method),
            (
                "network",
                " ".join(str(described[key]) for key in ("name", "architecture", "encoder") if key in described),
            ),
            ("size", parameters_text(network)),
            ("steps", f"{config.train.steps}"),
            ("seed", f"{config.seed}"),
            *images,
        ],
        counts=counts,
        iou=iou or dict.fromkeys(run.classes),
        miou=miou,
        interval=at_end.interval if counted else None,
        groups=at_end.groups if counted else None,
        gain=run.gain_since_warmup() if counted else None,
        files=files,
        removed=removed,
    ).markdown()


def _scores(run: FinishedRun, weights: str) -> tuple[float | None, Mapping[str, float | None], bool]:
    """mIoU and IoU by class of these weights, and whether they are those that ``validation.safetensors`` counts."""
    at_end = run.row()
    network = "teacher" if any("teacher/miou" in line for line in run.lines) else "student"
    scored = [line for line in run.lines if line.get(f"{network}/miou") is not None]
    best = max(scored, key=lambda line: line[f"{network}/miou"], default=None)
    if weights == "last" or best is None or best["step"] == run.config.train.steps:
        return at_end.miou, at_end.iou, True
    return best[f"{network}/miou"], {name: best.get(f"{network}/iou/{name}") for name in run.classes}, False


def _files_of(hub: HfApi, repository: str, *, private: bool) -> list[str] | None:
    """The files that a repository has; None if it does not exist. Raises InputError if it should not be pushed to."""
    try:
        found = hub.model_info(repository)
    except RepositoryNotFoundError:
        return None
    if found.private != private:
        is_so, option = ("private", "--private") if found.private else ("public", "--public")
        raise InputError(f"{repository} is {is_so} on the Hub; push with {option}, or change that there")
    names = [each.rfilename for each in found.siblings or []]
    others = [name for name in names if name not in (*_OWN, *_ANYBODYS)]
    if others and not any(name in names for name in _OWN if name.endswith(WEIGHTS_SUFFIX)):
        raise InputError(f"{repository} holds no model of u2pl, but {others[0]}; choose another name")
    return names
