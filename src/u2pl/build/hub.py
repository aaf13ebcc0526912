"""A repository of the Hugging Face Hub -> its file of weights, and what is said if the Hub does not give it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from huggingface_hub import constants as hub
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    validate_repo_id,
)

from u2pl.build.trained import WEIGHTS, WEIGHTS_SUFFIX, check_weights
from u2pl.engine.checkpoint import read_description
from u2pl.errors import InputError, quoted
from u2pl.networks.published import check
from u2pl.networks.tensor_file import first_sentence
from u2pl.networks.weights import connecting

_ADDRESS = re.compile(r"hf:/{1,2}([^@]+)(?:@(.+))?")  # a path has one slash where two are written


def address(path: PurePath | str) -> tuple[str, str | None] | None:
    """Repository and revision of ``hf://user/name`` or ``hf://user/name@revision``; None for another path."""
    found = _ADDRESS.fullmatch(path.as_posix() if isinstance(path, PurePath) else path)
    return None if found is None else (found[1], found[2])


def check_repository(repository: str) -> None:
    """Raise InputError for what is no name of a repository, ``user/name``."""
    try:
        validate_repo_id(repository)
        if "/" not in repository:
            raise HFValidationError
    except HFValidationError as error:
        raise InputError(
            f"{quoted(repository)} is no name of a repository; write user/name, in letters, digits, -, _ and ."
        ) from error


def fetch_weights(repository: str, *, revision: str | None = None, weights: str | None = None) -> Path:
    """Fetch the weights of a repository that `u2pl push` made into the local cache, unless they are there.

    Args:
        repository: ``user/name``.
        revision: a branch, a tag or a commit; None: the newest.
        weights: ``last`` or ``best``; None: the last ones, or the best if there are no others.

    Raises InputError if the repository, the revision or its weights do not exist, without a connection, and for weights
    that are damaged or not of u2pl.
    """
    check_repository(repository)
    if weights is not None:
        check_weights(weights)
    files = [f"{name}{WEIGHTS_SUFFIX}" for name in (WEIGHTS if weights is None else (weights,))]
    with asking_hub(repository if revision is None else f"{repository}@{revision}"):
        path = _first(repository, files, revision)
        check(path)
    try:
        read_description(path)
    except InputError as error:
        raise InputError(
            f"{repository}: {path.name} holds no trained network of u2pl; give a repository that `u2pl push` made"
        ) from error
    return path


def _first(repository: str, files: list[str], revision: str | None) -> Path:
    """The first of the files that a repository has."""
    for name in files:
        try:
            return Path(hf_hub_download(repository, name, revision=revision))
        except EntryNotFoundError as error:
            unknown = error if isinstance(error, LocalEntryNotFoundError) else None  # neither here nor asked for
    if unknown is not None:
        raise unknown
    raise InputError(f"{repository} has no {' and no '.join(files)}; give a repository that `u2pl push` made")


@contextmanager
def asking_hub(repository: str) -> Iterator[None]:
    """Context of requests to the Hub about a repository. If one fails, InputError says why in one line."""
    with connecting() as unreachable:
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # the hub's client, http and the cache raise different errors
            why = f"{unreachable}; check the network" if unreachable else _why(error)
            raise InputError(f"{repository}: {why}") from error


#: What a failed request means, and what to do, by the kind of error; the first that fits counts.
_MEANINGS = (
    (GatedRepoError, "gives its files only to those who asked for access; do so on its page, then `hf auth login`"),
    (RepositoryNotFoundError, "does not exist on the Hub, or is private; check the name, or log in: `hf auth login`"),
    (RevisionNotFoundError, "has no such revision; leave it out for the newest one"),
)
#: The same by the status of the answer.
_ANSWERS = {
    401: "the Hub does not accept the token; make a new one and log in with `hf auth login`",
    403: "the token may not do this; take one that may write, of an owner of this name",
}


def _why(error: Exception) -> str:
    if hub.HF_HUB_OFFLINE:
        return "is not in the local cache, and HF_HUB_OFFLINE forbids to ask the Hub; unset it"
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why the Hub could not be asked
    for kind, meaning in _MEANINGS:
        if isinstance(error, kind):
            return meaning
    if not isinstance(error, HfHubHTTPError):
        return f"{first_sentence(error)}; try again"
    status = error.response.status_code
    refused = f"the Hub refuses ({status}: {error.server_message or first_sentence(error)}); check the name"
    return _ANSWERS.get(status, refused if status < 500 else f"the Hub has an error ({status}); try again later")
