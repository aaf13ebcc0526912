"""A configuration as it is saved with a run: numbers in place of `auto` and of epochs, the precision in use."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lightning_fabric import Fabric

from u2pl.auto.choices import Choice, like
from u2pl.auto.facts import facts_of
from u2pl.auto.rules import fit, steps_of_epochs
from u2pl.config.fields import AUTO
from u2pl.config.overrides import load_saved
from u2pl.config.schema import Config, TrainConfig
from u2pl.data.files import cached
from u2pl.data.source import DataSource
from u2pl.engine.machine import precision_of

#: What may differ when a run goes on, on another machine for example: no weight depends on it.
LOADING = ("data.cache", "data.workers")


class Resolved(NamedTuple):
    """A configuration that a run can be built from."""

    config: Config
    source: DataSource  #: kept in memory where that was chosen
    choices: tuple[Choice, ...]  #: what was `auto`


def resolved(config: Config, source: DataSource, fabric: Fabric) -> Resolved:
    """Choose what is `auto`, and say how many steps there are and the precision in use.

    Raises InputError for an image that cannot be read.
    """
    choices: tuple[Choice, ...] = ()
    keep = config.data.cache == AUTO
    if config.auto_keys():
        processes = config.train.devices * config.train.nodes
        config, choices = fit(config, facts_of(source, device=fabric.device, processes=processes))
    in_use = {"precision": precision_of(fabric), "steps": steps_of(config.train, source)}
    config = config.model_copy(update={"train": config.train.model_copy(update=in_use)})
    return Resolved(config, cached(source) if keep and config.data.cache else source, choices)


def steps_of(train: TrainConfig, source: DataSource) -> int:
    """Optimiser steps: ``steps``, unless ``epochs`` asks for passes over the unlabeled images.

    Where there are none, it counts the labeled ones. A supervised run is as long as the semi-supervised one beside it.
    """
    return train.steps if train.epochs is None else steps_of_epochs(train, len(source.unlabeled) or len(source.labeled))


def as_begun(config: Config, out: Path) -> Config:
    """What is `auto` as the run in ``out`` began with it, if there is one, whatever would be chosen now."""
    saved = out / "config.yaml"
    if not saved.exists():
        return config
    return like(config, load_saved(saved), set(config.auto_keys()) - set(LOADING))
