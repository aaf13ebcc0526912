"""Complete a configuration before it is saved with a run: values for `auto`, steps for epochs, the precision in use."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lightning_fabric import Fabric

from u2pl.auto.choices import Choice, like
from u2pl.auto.facts import Precision, facts_of
from u2pl.auto.rules import fit, steps_of_epochs
from u2pl.config.fields import AUTO
from u2pl.config.overrides import load_saved
from u2pl.config.schema import Config, TrainConfig
from u2pl.data.files import cached
from u2pl.data.source import DataSource
from u2pl.engine.machine import precision_of

#: Keys that may change when a run resumes, for example on another machine. No weight depends on them.
LOADING = ("data.cache", "data.workers", "data.timeout", "train.tracker")


class Resolved(NamedTuple):
    """A complete configuration, its data set and the choices."""

    config: Config
    source: DataSource  #: kept in memory if `data.cache` is chosen so
    choices: tuple[Choice, ...]  #: the values chosen for `auto`


def resolved(config: Config, source: DataSource, fabric: Fabric, precision: Precision | None = None) -> Resolved:
    """Replace `auto` by values, and set the number of steps and the numeric precision in use.

    Raises InputError for an image that cannot be read.

    Args:
        precision: of pseudo-labels, if it is measured; see :attr:`u2pl.auto.choices.Choice.to_measure`.
    """
    choices: tuple[Choice, ...] = ()
    keep = config.data.cache == AUTO
    if config.auto_keys():
        processes = config.train.devices * config.train.nodes
        facts = facts_of(source, device=fabric.device, processes=processes, precision=precision)
        config, choices = fit(config, facts)
    in_use = {"precision": precision_of(fabric), "steps": steps_of(config.train, source)}
    config = config.model_copy(update={"train": config.train.model_copy(update=in_use)})
    return Resolved(config, cached(source) if keep and config.data.cache else source, choices)


def steps_of(train: TrainConfig, source: DataSource) -> int:
    """Number of optimiser steps: ``steps``, or ``epochs`` passes over the unlabeled images if that is set.

    Without unlabeled images, passes count the labeled ones. A supervised run is as long as a semi-supervised run on the
    same data.
    """
    return train.steps if train.epochs is None else steps_of_epochs(train, len(source.unlabeled) or len(source.labeled))


def as_begun(config: Config, out: Path) -> Config:
    """Replace `auto` by the values with which the run in ``out`` began, if there is one."""
    saved = out / "config.yaml"
    if not saved.exists():
        return config
    return like(config, load_saved(saved), set(config.auto_keys()) - set(LOADING))
