"""The command `u2pl check`: read all data of a configuration, and print its contents and its problems."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from u2pl.auto.resolving import resolved
from u2pl.build import build_negative_keys, build_source, check_image_prior
from u2pl.commands.checks import fabric_of, unfetched_network
from u2pl.commands.overview import parameters_text, print_choices, print_overview
from u2pl.config.overrides import load_config
from u2pl.data.inspection import inspect
from u2pl.report.printing import progress_bar, say


def check(source: str, overrides: Sequence[str], console: Console, *, verbose: bool = False) -> bool:
    """Print what a configuration would train on, and how. Returns whether it can be trained.

    ``verbose`` prints the full reasons of each choice.
    """
    config = load_config(source, overrides)
    data = build_source(config.data, seed=config.seed)
    if config.method.uses_negative_keys and len(data.classes) > 1:  # else the inspection says so
        build_negative_keys(config.method, len(data.classes))
    check_image_prior(config)
    with progress_bar(console, transient=True) as bar:
        task = bar.add_task("reading")
        inspection = inspect(
            data,
            semi_supervised=config.method.kind.semi_supervised,
            weak=config.method.kind.uses_tags,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print_overview(console, config, inspection, data.classes)
    if inspection.errors:
        say(console, "fix these errors before you train")
        return False
    whole = resolved(config, data, fabric_of(config.train))
    print_choices(console, whole.choices, verbose=verbose)
    if config.network.freeze is not False:
        say(console, f"network.freeze: {parameters_text(unfetched_network(whole.config, len(data.classes)))}")
    say(console, "ready to train")
    return True
