"""Whether the lines of a comparison get the same help: what one method has and another lacks, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from u2pl.config.schema import Config, all_keys
from u2pl.config.uses import HELP, uses
from u2pl.errors import InputError
from u2pl.experiments.trials import Trial
from u2pl.report.differences import differing, text_of
from u2pl.report.printing import TextTable


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
            setting = f"{key}={text_of(shared, key)}"
            raise InputError(
                f"{setting}: helps {', '.join(helped)}, but {', '.join(lacking)} cannot use it, so the comparison "
                f'would not be fair; give it to one line: --variant "NAME: method.name={helped[0]} {setting}"'
            )


def differences(trials: Sequence[Trial]) -> TextTable | None:
    """A row for each setting that differs between lines that use it; None without one.

    Compares the runs of the first seed and number of labels. A line that does not use the setting has `-`.
    """
    first = [one for one in trials if (one.labeled, one.seed) == (trials[0].labeled, trials[0].seed)]
    keys = [key for key, _ in all_keys() if key != "method.name" and not key.startswith(("data.labeled", "seed"))]
    rows = differing([one.config for one in first], keys)
    if not rows:
        return None
    table = TextTable()
    table.add_column("setting", no_wrap=True)
    for one in first:
        table.add_column(one.name)
    for key, cells in rows.items():
        table.add_row(key, *("-" if cell is None else cell for cell in cells))
    return table
