"""The table of an ablation: one row per value of each axis, with its difference from the reference."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from u2pl.experiments.comparison_table import DASH, note
from u2pl.experiments.records import Record, summary
from u2pl.experiments.trials import Setting
from u2pl.report.grid import Grid


def ablation_grid(settings: Sequence[Setting], records: Mapping[Path, Record]) -> Grid:
    """The results of the settings, the reference first. ``records`` are by folder. A dash is a missing result."""
    reference = settings[0]
    rows = []
    for setting in settings:
        score = summary(setting.trials, records)
        gain = difference(setting, reference, records)
        if setting.trials == reference.trials:
            told = "" if setting is reference else "(is the reference)"
        else:
            told = DASH if gain is None else f"{gain:+.2f}"
        rows.append((setting.axis, setting.value, DASH if score is None else str(score), told))
    told = note(trial for setting in settings for trial in setting.trials)
    return Grid(("axis", "value", "mIoU", "difference"), tuple(rows), told, names=2)


def difference(setting: Setting, reference: Setting, records: Mapping[Path, Record]) -> float | None:
    """Mean difference in mIoU over the seeds that both have; None if there is none."""
    return mean_or_none(
        records[trial.folder].miou - records[base.folder].miou
        for trial, base in zip(setting.trials, reference.trials, strict=True)
        if trial.folder in records and base.folder in records
    )


def mean_or_none(values: Iterable[float]) -> float | None:
    """The mean; None without values."""
    known = list(values)
    return statistics.fmean(known) if known else None
