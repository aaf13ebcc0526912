"""Train trials one after another. Finished ones are skipped, stopped ones resume."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from u2pl.commands.overview import print_choices
from u2pl.commands.report import report_comparison
from u2pl.commands.train import train
from u2pl.engine.checkpoint import write_atomically, write_text_atomically
from u2pl.engine.launching import ending_together
from u2pl.engine.machine import is_main_process
from u2pl.engine.resume import CHECKPOINTS
from u2pl.engine.run import Watcher
from u2pl.errors import InputError
from u2pl.experiments.choices import runs_of_choices
from u2pl.experiments.records import Record, is_finished, read_record, write_records, write_scores
from u2pl.experiments.trials import Trial, naming
from u2pl.report.grid import Grid, show_grid
from u2pl.report.printing import TextTable, say, show
from u2pl.report.progress import ProgressBar

Records = Mapping[Path, Record]  #: of finished runs, by folder
Report = Callable[[Records], None]


def run_into(
    out: Path,
    trials: Sequence[Trial],
    *,
    grid: Callable[[Records], Grid],
    plot: Callable[[Path, Records], None],
    console: Console,
    keep_checkpoints: bool = False,
    dry_run: bool = False,
    watchers: tuple[Watcher, ...] = (),
) -> list[Record]:
    """Train the trials. Write ``results.json``, ``table.md`` and ``plot.png`` into ``out`` after each of them.

    Raises InputError after the last trial if some failed.

    Args:
        grid, plot: make the table, and write the plot to a path, from the finished trials.
        dry_run: list the trials and train none.
    """
    choices = {str(choice): choice for trial in trials for choice in trial.choices}
    print_choices(console, list(choices.values()), runs=runs_of_choices(trials))
    if dry_run:
        list_trials(trials, console)
        return []

    def finished(records: Records) -> list[Record]:
        return [records[trial.folder] for trial in trials if trial.folder in records]

    def report(records: Records) -> None:
        write_records(out / "results.json", finished(records))
        write_text_atomically(out / "table.md", grid(records).markdown())
        write_atomically(out / "plot.png", lambda path: plot(path, records))

    records, failures = run_trials(
        trials, console=console, report=report, keep_checkpoints=keep_checkpoints, watchers=watchers
    )
    show_grid(console, grid(records))
    if is_main_process() and records:
        folders = [trial.folder for trial in trials if trial.folder in records]
        report_comparison(out, folders, grid(records), partial(say, console))
    if failures:
        raise InputError(f"{len(failures)} of {len(trials)} runs failed: {'; '.join(failures)}")
    return finished(records)


@ending_together()
def run_trials(
    trials: Sequence[Trial],
    *,
    console: Console,
    report: Report,
    keep_checkpoints: bool = False,
    watchers: tuple[Watcher, ...] = (),
) -> tuple[dict[Path, Record], list[str]]:
    """Train the trials that are not finished. Returns the records of finished ones by folder, and error messages.

    If a trial fails, the others still run. ``report`` is called at the beginning if some trials are finished, and after
    every run. Only the main process writes, reports and returns records.

    Args:
        keep_checkpoints: keep ``last.ckpt`` in the folders of finished runs; it is only needed to resume.
        watchers: receive the progress of every training.
    """
    records: dict[Path, Record] = {}
    failures: list[str] = []

    def settle(trial: Trial) -> None:
        if is_main_process():
            records[trial.folder] = _settled(trial, keep_checkpoints=keep_checkpoints)

    waiting = [trial for trial in trials if not is_finished(trial.folder)]
    for trial in trials:
        if is_finished(trial.folder):
            settle(trial)
    if records:
        report(records)
    for number, trial in enumerate(waiting, start=len(trials) - len(waiting) + 1):
        say(console, f"run {number} of {len(trials)}: {trial.folder.name}", style="bold")
        try:
            with naming(trial.folder.name):
                _train(trial, console, watchers)
        except InputError as error:
            if trial.config.train.devices * trial.config.train.nodes > 1:
                raise  # the other processes may wait for this one forever
            failures.append(str(error))
            say(console, str(error), style="red")
        else:
            settle(trial)
            if records:
                report(records)
        _free_memory()
    return records, failures


def state_of(trial: Trial) -> str:
    """What :func:`run_trials` would do with a trial."""
    if is_finished(trial.folder):
        return "finished"
    return "goes on" if (trial.folder / "last.ckpt").exists() else "new"


def list_trials(trials: Sequence[Trial], console: Console) -> None:
    """Print the trials and their state."""
    table = TextTable(title=f"{len(trials)} run{'s' * (len(trials) > 1)} in {trials[0].folder.parent}")
    for column in ("folder", "labeled images", "steps", "state"):
        table.add_column(column, justify="right" if column in ("labeled images", "steps") else "left")
    for trial in trials:
        table.add_row(trial.folder.name, trial.counted, str(trial.config.train.steps), state_of(trial))
    show(console, table)


def _train(trial: Trial, console: Console, watchers: tuple[Watcher, ...]) -> None:
    with ProgressBar(console, title=trial.folder.name) as bar:
        trained = train(
            trial.asked, trial.folder, resume=True, watchers=(bar, *watchers), say=partial(say, console), reports=False
        )
    if is_main_process():
        write_scores(trial.folder, trained.scores)


def _settled(trial: Trial, *, keep_checkpoints: bool) -> Record:
    """The record of a finished trial. Removes its checkpoints, many times the weights with a memory bank."""
    if not keep_checkpoints:
        for name in reversed(CHECKPOINTS):
            (trial.folder / name).unlink(missing_ok=True)
    return read_record(trial)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
