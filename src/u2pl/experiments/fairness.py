"""Whether the lines of a comparison get the same help: what one method has and another lacks, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from u2pl.auto.choices import value_text
from u2pl.config.fields import Section
from u2pl.config.schema import Config, MethodConfig, all_keys
from u2pl.errors import InputError
from u2pl.experiments.trials import Trial
from u2pl.report.printing import TextTable

Uses = Callable[[MethodConfig], bool]


def _partitions(method: MethodConfig) -> bool:
    return method.kind.has_teacher and not method.kind.has_threshold


#: What could help other methods as well, but is built for these only.
HELP: Mapping[str, Uses] = {
    "method.feature_dropout": _partitions,
    "method.complementary_dropout": _partitions,
    "method.loss_weights.negative": _partitions,
    "method.masked_consistency": lambda method: method.kind.has_teacher,
    "method.strong_views.number": lambda method: method.kind.strong_views is None,
}
#: What makes a method this method.
OWN: Mapping[str, Uses] = {
    "method.reliability.": _partitions,
    "method.schedule.": _partitions,
    "method.weighting.": _partitions,
    "method.teacher.": lambda method: method.kind.has_teacher,
    "method.threshold": lambda method: method.kind.has_threshold,
    "method.contrast": lambda method: method.trains_embeddings,
    "method.negative_keys.": lambda method: method.uses_negative_keys,
    "method.loss_weights.contrastive": lambda method: method.trains_embeddings,
    "method.prototypes": lambda method: method.trains_embeddings,
    "method.denoising": lambda method: method.trains_embeddings,
    "method.cam.": lambda method: method.kind.uses_tags,
    "method.loss_weights.classification": lambda method: method.kind.uses_tags,
    "method.": lambda method: method.kind.semi_supervised,
}


def uses(key: str, method: MethodConfig) -> bool:
    """Whether a key, such as `method.schedule.warmup`, changes the training of a method."""
    if key.startswith(("method.supervised_loss.", "method.loss_weights.auxiliary")) or not key.startswith("method."):
        return True
    return next(use for start, use in (*HELP.items(), *OWN.items()) if key.startswith(start))(method)


def require_fairness(shared: Config, lines: Mapping[str, Config]) -> None:
    """Raise InputError if a setting that all lines share helps one method and not another.

    Settings that make a method what it is, such as the contrast of `u2pl`, are its own. A line with only labels gets no
    help. What a line sets for itself is in its name.

    Args:
        shared: the configuration that all lines share.
        lines: the configuration of each line, by its name.
    """
    others = {name: line.method for name, line in lines.items() if line.method.kind.semi_supervised}
    for key in HELP:
        if shared.value(key) == Config().value(key):
            continue
        helped = [name for name, method in others.items() if uses(key, method)]
        lacking = [name for name in others if name not in helped]
        if helped and lacking:
            setting = f"{key}={_value(shared, key)}"
            raise InputError(
                f"{setting}: helps {', '.join(helped)}, but {', '.join(lacking)} cannot use it, so the comparison "
                f'would not be fair; give it to one line: --variant "NAME: method.name={helped[0]} {setting}"'
            )


def differences(trials: Sequence[Trial]) -> TextTable | None:
    """A row for each setting that differs between lines that use it; None without one.

    Compares the runs of the first seed and number of labels. A line that does not use the setting has `-`.
    """
    first = [one for one in trials if (one.labeled, one.seed) == (trials[0].labeled, trials[0].seed)]
    rows: dict[str, list[str]] = {}
    for key, _ in all_keys():
        if key == "method.name" or key.startswith(("data.labeled", "seed")):
            continue
        values: list[Any] = [_value(one.config, key) if uses(key, one.config.method) else None for one in first]
        used = [value for value in values if value is not None]
        lacking = key in HELP and None in values  # what helps some lines only
        if any(value != used[0] or (lacking and value != _value(Config(), key)) for value in used):
            rows[key] = ["-" if value is None else value for value in values]
    if not rows:
        return None
    table = TextTable()
    table.add_column("setting", no_wrap=True)
    for one in first:
        table.add_column(one.name)
    for key, cells in rows.items():
        table.add_row(key, *cells)
    return table


def _value(config: Config, key: str) -> str:
    value = config.value(key)
    return value_text(True if isinstance(value, Section) else value)
