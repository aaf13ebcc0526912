"""What `auto` becomes: facts of a run -> values of its keys, with the reason.

The rules stand in the modules of this package with their numbers, by what they go by. A rule reads the facts, the keys
that are set, and what the rules before it chose. Length, crops and learning rates depend neither on the method nor on
how many of the images are labeled: runs that these set apart are alike otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

from u2pl.auto.choices import Choice, take
from u2pl.auto.facts import Facts
from u2pl.auto.rules.machine import bank, batch, crops, length, loading
from u2pl.auto.rules.method import belief, image_prior, labels, pseudo_labels, ranks, schedule, teacher, views
from u2pl.auto.rules.reading import steps_of_epochs
from u2pl.auto.rules.training import colours, network, optimizer
from u2pl.config.schema import Config

__all__ = ["fit", "steps_of_epochs"]

#: In the order in which one builds on another.
RULES: tuple[Callable[[Config, Facts], Choice], ...] = (
    loading,
    network,
    crops,
    colours,
    batch,
    image_prior,
    belief,
    schedule,
    labels,
    views,
    pseudo_labels,
    length,
    optimizer,
    teacher,
    ranks,
    bank,
)


def fit(config: Config, facts: Facts) -> tuple[Config, tuple[Choice, ...]]:
    """``config`` with a value in place of every `auto`, and what was chosen. Keys that are set stay as they are."""
    choices = []
    for rule in RULES:
        config, choice = take(config, rule(config, facts))
        choices += [choice] if choice.values else []
    return config, tuple(choices)
