"""What `check` and `train` print before a training: warnings, the data, and the choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

from rich.console import Console
from torch import nn

from u2pl.auto.choices import Choice
from u2pl.config.schema import Config
from u2pl.data.inspection import Inspection
from u2pl.engine.parameter_count import trained_parameters, training_parameters
from u2pl.report.choices_table import choices_table
from u2pl.report.data_table import data_line, data_table
from u2pl.report.printing import say, show

_SECONDS = 10.0  # between two lines of progress


def print_overview(
    console: Console,
    config: Config,
    inspection: Inspection,
    classes: Sequence[str],
    choices: Sequence[Choice] = (),
    *,
    verbose: bool = False,
) -> None:
    """Print warnings first, then what was done with the data, a table of them, and a table of the choices."""
    for kind, lines in (("error", inspection.errors), ("warning", [*inspection.warnings, *frozen_noise(config)])):
        for line in lines:
            say(console, f"{kind}: {line}")
    for fact in inspection.facts:
        say(console, fact)
    domains = config.data.name == "domain" and not config.data.upper_bound
    say(console, data_line(inspection, domains=domains))
    show(console, data_table(inspection, classes, domains=domains))
    print_choices(console, choices, verbose=verbose)


def frozen_noise(config: Config) -> list[str]:
    """A warning if the configuration freezes an encoder that has learned nothing."""
    if config.network.freeze is False or config.network.pretrained or config.network.weights is not None:
        return []
    return [
        "network.freeze: the encoder has random weights and would keep them; give network.weights or "
        "network.pretrained=true, or set network.freeze=false"
    ]


def parameters_text(network: nn.Module) -> str:
    """How many parameters a network has, and how many of them train if not all."""
    whole, trained = training_parameters(network), trained_parameters(network)
    return f"{whole / 1e6:.1f} M parameters" + (f", {trained / 1e6:.1f} M of them train" if trained < whole else "")


def print_choices(
    console: Console, choices: Sequence[Choice], *, runs: Mapping[str, str] | None = None, verbose: bool = False
) -> None:
    """Print the warnings and the table of choices, if there are any."""
    for warning in dict.fromkeys(choice.warning for choice in choices if choice.warning):
        say(console, f"warning: {warning}")
    table = choices_table(choices, runs=runs, verbose=verbose)
    if table is not None:
        say(console, "chosen by `auto`:")
        show(console, table)


def reading(tell: Callable[[str], None]) -> Callable[[int, int], None]:
    """A progress callback that reports how many images are read, every few seconds."""
    last = perf_counter()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if perf_counter() - last >= _SECONDS:
            last = perf_counter()
            tell(f"reading: {done} of {total} images")

    return progress
