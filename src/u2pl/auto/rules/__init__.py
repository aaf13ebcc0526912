"""The rules for `auto`: facts of a run -> values of its keys, with the reason.

The modules of this package contain the rules and their numbers, grouped by what they depend on. A rule uses the facts,
the keys that are set, and the choices of earlier rules. Length, crops and learning rates depend neither on the method
nor on the number of labeled images, so that runs which compare these are alike otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

from u2pl.auto.choices import Choice, take
from u2pl.auto.facts import Facts
from u2pl.auto.rules.machine import bank, batch, compiling, crops, length, loading
from u2pl.auto.rules.method import (
    belief,
    image_prior,
    labels,
    pseudo_labels,
    ranks,
    schedule,
    teacher,
    threshold,
    views,
)
from u2pl.auto.rules.reading import steps_of_epochs
from u2pl.auto.rules.training import colours, encoder, network, optimizer
from u2pl.config.schema import Config

__all__ = ["fit", "steps_of_epochs"]

#: In order: a rule may use the choices of earlier ones.
RULES: tuple[Callable[[Config, Facts], Choice], ...] = (
    loading,
    encoder,
    network,
    crops,
    colours,
    batch,
    image_prior,
    belief,
    threshold,
    schedule,
    labels,
    views,
    pseudo_labels,
    length,
    compiling,
    optimizer,
    teacher,
    ranks,
    bank,
)


def fit(config: Config, facts: Facts) -> tuple[Config, tuple[Choice, ...]]:
    """``config`` with a value in place of every `auto`, and the choices. Keys that are set stay unchanged."""
    choices = []
    for rule in RULES:
        config, choice = take(config, rule(config, facts))
        choices += [choice] if choice.values else []
    return config, tuple(choices)
