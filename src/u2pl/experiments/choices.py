"""Which runs a value chosen in place of `auto` belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from u2pl.experiments.comparison_table import labels_header
from u2pl.experiments.trials import Trial


def runs_of_choices(trials: Sequence[Trial]) -> dict[str, str]:
    """The runs of each choice, by its text, if other runs have another choice of the same keys.

    They are named by their number of labels if that tells them apart, else by their names.
    """
    held: dict[str, list[Trial]] = {}
    texts: dict[str, set[str]] = {}  # by key
    for trial in trials:
        for choice in trial.choices:
            held.setdefault(str(choice), []).append(trial)
            for key in choice.values:
                texts.setdefault(key, set()).add(str(choice))
    named = {}
    for same in map(frozenset, texts.values()):
        for text in same if len(same) > 1 else ():
            others = [trial for other in same - {text} for trial in held[other]]
            named[text] = _names(held[text], others)
    return named


def _names(trials: Sequence[Trial], others: Sequence[Trial]) -> str:
    ways: tuple[Callable[[Trial], str], ...] = (
        lambda trial: labels_header([trial]),
        lambda trial: trial.name,
        lambda trial: f"{trial.name}, {labels_header([trial])}",
    )
    for way in ways:
        if not _told(way, trials) & _told(way, others):
            break
    return "; ".join(dict.fromkeys(map(way, trials)))


def _told(way: Callable[[Trial], str], trials: Iterable[Trial]) -> set[str]:
    return set(map(way, trials))
