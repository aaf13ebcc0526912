"""Go on from a trained network: its weights, with the rows of its classifiers matched by the names of the classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from u2pl.build.description import checked_description
from u2pl.build.trained import WEIGHTS_SUFFIX, network_of, read_trained
from u2pl.config.schema import Config
from u2pl.engine.checkpoint import read_description
from u2pl.errors import InputError

_KEY, _OPTION = "network.start_from", "--from"
_REMEDY, _REMEDY_OF_OPTION = "`u2pl train --from` takes its network with it", "leave out your keys of `network`"


@contextmanager
def named_as_typed(start: Path | None, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Errors inside name the option `--from`, if it was given, and not the key that it sets."""
    try:
        yield
    except InputError as error:
        typed = {each.partition("=")[0] for each in overrides}
        if start is None or _KEY in typed:
            raise
        message = str(error).replace(_KEY, _OPTION).replace(_REMEDY, _REMEDY_OF_OPTION)
        key = message.partition(":")[0]
        if key.startswith("network.") and key not in {*typed, "network.freeze"}:  # the run has it, not the user
            message = f"{_OPTION} {start}: {message.rpartition('; ')[0]}; {_REMEDY_OF_OPTION}"
        raise InputError(message) from error


def start(network: nn.Module, config: Config, classes: Sequence[str]) -> None:
    """Give a freshly built network the weights of ``network.start_from``, if that is set.

    Rows of classes with the same name are copied, in whatever order. Those of new classes, and heads that the other
    network does not have, keep their random weights.

    Raises InputError if there are no such weights, or if they are of another network.
    """
    if config.network.start_from is None:
        return
    path = weights_of(Path(config.network.start_from))
    trained = read_trained(path, "cpu")
    before = trained.network.state_dict()
    fitting = matched(
        before, network.state_dict(), class_rows(trained.description), trained.description["classes"], classes
    )
    wrong = [
        f"{name} is {tuple(before[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in network.state_dict().items()
        if name in before and name not in fitting
    ]
    missing = [name for name in network.state_dict() if name.startswith("encoder.") and name not in before]
    if wrong or missing or not fitting:
        why = wrong[0] if wrong else f"{missing[0]} is missing" if missing else "no tensor has the same name"
        raise InputError(f"{_KEY}: {path} is of another network: {why}; {_REMEDY}")
    network.load_state_dict(fitting, strict=False)


def network_keys(run: Path) -> list[str]:
    """Settings that build the network of a run and begin with its weights. Raises InputError if there are none."""
    path = weights_of(run)
    network = checked_description(read_description(path), path)["network"]
    keys = [f"network.{key}={json.dumps(value)}" for key, value in network.items()]
    return [*keys, "network.pretrained=false", "network.weights=null", f"network.start_from={json.dumps(str(run))}"]


def weights_of(run: Path) -> Path:
    """The file of weights of a run folder, or the file itself. Raises InputError if there is none."""
    path = run / f"last{WEIGHTS_SUFFIX}" if run.is_dir() else run
    if not path.is_file():
        raise InputError(
            f"{_KEY}: {path} is missing; give a run folder made by `u2pl train`, or a {WEIGHTS_SUFFIX} file"
        )
    return path


def class_rows(description: dict[str, object]) -> dict[str, int]:
    """The tensors of a described network that have a row for each class, and how many classes come before the first.

    Heads for tags have no row for the background.
    """
    classes = description["classes"]
    assert isinstance(classes, list)
    with torch.device("meta"):
        one, more = (
            network_of({**description, "classes": [*classes, *extra]}).state_dict() for extra in ([], ["more"])
        )
    return {name: len(classes) - len(tensor) for name, tensor in one.items() if tensor.shape != more[name].shape}


def matched(
    before: Mapping[str, Tensor],
    now: Mapping[str, Tensor],
    rows: Mapping[str, int],
    old: Sequence[str],
    new: Sequence[str],
) -> dict[str, Tensor]:
    """The tensors to load: those of the same name and shape, and those with rows by class.

    Args:
        before, now: state dicts of the trained and of the new network.
        rows: names of tensors with a row for each class, and the number of classes that have none.
        old, new: names of the classes of both.
    """
    found = {}
    for name, tensor in now.items():
        if name not in before:
            continue
        if name not in rows:
            if before[name].shape == tensor.shape:
                found[name] = before[name]
            continue
        first = rows[name]
        if before[name].shape[1:] != tensor.shape[1:] or len(tensor) != len(new) - first:
            continue
        value = tensor.clone()
        places = {label: place for place, label in enumerate(old[first:])}
        for place, label in enumerate(new[first:]):
            if label in places:
                value[place] = before[name][places[label]]
        found[name] = value
    return found
