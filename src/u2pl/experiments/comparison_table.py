"""The table of a comparison: one row per method and one column per number of labels."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from u2pl.experiments.records import Record, summary
from u2pl.experiments.trials import Trial
from u2pl.report.grid import Grid

DASH = "-"


def comparison_grid(trials: Sequence[Trial], records: Mapping[Path, Record]) -> Grid:
    """The results of the finished trials. ``records`` are by folder. A dash is a missing result."""
    columns = dict.fromkeys(trial.labeled for trial in (*_without_baseline(trials), *trials))
    lines = {name: [trial for trial in trials if trial.name == name] for name in dict.fromkeys(t.name for t in trials)}
    heads = any(millions(trial.parameters) != millions(trial.training_parameters) for trial in trials)
    rows = []
    for name, line in lines.items():
        cells = (summary([trial for trial in line if trial.labeled == labeled], records) for labeled in columns)
        scores = (DASH if cell is None else str(cell) for cell in cells)
        trained = [millions(line[0].training_parameters)] * heads
        rows.append((name, *scores, millions(line[0].parameters), *trained, ms_per_step(line, records)))
    headers = (labels_header([trial for trial in trials if trial.labeled == labeled]) for labeled in columns)
    header = ("method", *headers, "parameters", *["in training"] * heads, "ms/step")
    return Grid(header, tuple(rows), note(trials))


def note(trials: Iterable[Trial]) -> str:
    """The note of a table: what its numbers are."""
    seeds = list(dict.fromkeys(trial.seed for trial in trials))
    over = f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}"
    spread = ", mean ± standard deviation of the sample" if len(seeds) > 1 else ""
    return f"Validation mIoU in %{spread}, {over}; after the last step, of the model each method leaves to use."


def millions(parameters: int) -> str:
    """A number of parameters as ``40.5 M``."""
    return f"{parameters / 1e6:.1f} M"


def ms_per_step(trials: Iterable[Trial], records: Mapping[Path, Record]) -> str:
    """Median milliseconds per step over the finished trials."""
    known = [records[trial.folder].ms_per_step for trial in trials if trial.folder in records]
    times = [time for time in known if time is not None]
    return f"{statistics.median(times):.0f}" if times else DASH


def _without_baseline(trials: Iterable[Trial]) -> Iterable[Trial]:
    return (trial for trial in trials if not trial.baseline)


def labels_header(column: Sequence[Trial]) -> str:
    """The number, or numbers, of labeled images of a column, and their choice if that adds information."""
    baseline, labeled = column[-1].baseline, column[-1].labeled
    counts = " or ".join(dict.fromkeys(trial.counted for trial in column))
    if baseline:
        return f"all {counts} labels"
    told = (
        ""
        if labeled in (counts, "all", *(str(trial.images) for trial in column if trial.target_images))
        else f" ({labeled})"
    )
    return f"{counts} {'label' if counts == '1' else 'labels'}{told}"
