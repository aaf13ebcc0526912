"""The command line: typer commands that call the library, without logic of their own."""

from __future__ import annotations

import json
import re
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import u2pl
from u2pl.cli.arguments import ConfigArgument, Overrides
from u2pl.cli.distill import distill
from u2pl.cli.experiments import ablate, assess, compare
from u2pl.cli.export import export
from u2pl.cli.failures import end_with
from u2pl.cli.formats import export_masks, import_masks
from u2pl.cli.push import push
from u2pl.cli.reference import convert_config, keys, presets
from u2pl.cli.report import report
from u2pl.cli.splits import splits
from u2pl.cli.suggest import suggest
from u2pl.engine.stopping import Stopped, stop_on_signals
from u2pl.errors import InputError
from u2pl.paths import argument, output
from u2pl.report.printing import accept_all_text, complain, say, show
from u2pl.threads import spin_shortly

app = typer.Typer(
    help="Label-efficient semantic segmentation: U2PL. Start with `u2pl demo`, then `u2pl train folder data.root=DIR`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(splits, name="splits", no_args_is_help=True)
console = Console()

RunArgument = Annotated[
    Path, typer.Argument(parser=argument("RUN"), help="A run folder made by `u2pl train`, or a .safetensors file.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print the full reasons of each choice.")]
Weights = Annotated[str, typer.Option(help="`last` (end of training) or `best` (highest validation mIoU).")]


def _print_version(wanted: bool) -> None:
    if wanted:
        say(console, f"u2pl {u2pl.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What comes before the command."""


@app.command()
def demo(
    setting: Annotated[
        str, typer.Option(help="`semi`: few labels; `domain`: labels of another domain; `weak`: image-level tags.")
    ] = "semi",
    out: Annotated[
        Path | None, typer.Option(parser=output(), help="Folder of the results. Default: runs/demo[-SETTING].")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of each run; fewer is faster and worse.")] = None,
    seed: Annotated[int, typer.Option(help="Chooses the scenes, the initial weights and every random draw.")] = 0,
) -> None:
    """Train on generated scenes, without and with unlabeled images, and compare. Needs no data."""
    from u2pl.commands.demo import run_demo

    run_demo(out, console, setting=setting, steps=steps, seed=seed)


@app.command()
def train(
    config: ConfigArgument,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(parser=output(), help="Run folder. Default: runs/CONFIG-METHOD-SEED.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the stopped run in --out.")] = False,
    start: Annotated[
        Path | None, typer.Option("--from", parser=argument("--from"), help="Begin with the network of this run.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Train a model into a run folder."""
    from u2pl.build.starting import named_as_typed, network_keys
    from u2pl.commands.run_folder import resume_note
    from u2pl.commands.train import train as run_training
    from u2pl.config.overrides import load_config
    from u2pl.engine.machine import is_main_process
    from u2pl.report.progress import ProgressBar

    console.quiet = not is_main_process()
    with named_as_typed(start, overrides or ()):
        settings = load_config(config, [*(() if start is None else network_keys(start)), *(overrides or ())])
        folder = out or Path("runs") / f"{Path(config).stem}-{settings.method.name}-{settings.seed}"
        note = resume_note(folder) if resume else None
        if note is not None:
            say(console, note)
        with ProgressBar(console, title=settings.method.name) as bar:
            trained = run_training(
                settings,
                folder,
                resume=resume,
                watchers=(bar,),
                say=partial(say, console),
                console=console,
                verbose=verbose,
            )
    _finish(trained.folder, trained.scores)


@app.command()
def evaluate(
    run: RunArgument,
    overrides: Overrides = None,
    images: Annotated[
        Path | None,
        typer.Option(parser=argument("--images"), help="Score these images instead of the run's validation set."),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(parser=argument("--masks"), help="Masks of --images, matched by name without suffix.")
    ] = None,
    weights: Weights = "last",
    as_json: Annotated[bool, typer.Option("--json", help="Print only one JSON object.")] = False,
) -> None:
    """Score a trained model: mIoU, IoU of each class and pixel accuracy, in percent."""
    from u2pl.commands.evaluate import score_run
    from u2pl.report.table import stage_table

    scores = score_run(run, overrides or (), images=images, masks=masks, weights=weights)
    if as_json:
        sys.stdout.write(json.dumps(scores.as_json()) + "\n")
    else:
        show(console, stage_table(scores, title=str(run)))


@app.command()
def predict(
    run: Annotated[
        Path,
        typer.Argument(
            parser=argument("RUN"), help="A run folder made by `u2pl train`, a .safetensors file, or hf://user/name."
        ),
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(help="Images, folders of images, and keys such as evaluation.flip=true."),
    ],
    out: Annotated[
        Path, typer.Option(parser=output(), help="Folder for STEM.png (class indices) and STEM_overlay.jpg.")
    ],
    weights: Weights = "last",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also replace files that `u2pl predict` did not write.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Write nothing if an image cannot be read. Default: leave it out.")
    ] = False,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Largest image in pixels. Default: 179 million.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, bf16 (faster; the classes of some pixels change) or auto (bf16 where native).")
    ] = "fp32",
) -> None:
    """Segment images: write index masks at the original size, and overlays."""
    from u2pl.commands.predict import predict_files

    keys = [each for each in inputs if re.match(r"[a-z]+\.[a-z_.]+=", each)]
    predicted = predict_files(
        run,
        [argument("INPUTS")(each) for each in inputs if each not in keys],
        out,
        console=console,
        weights=weights,
        overrides=keys,
        overwrite=overwrite,
        strict=strict,
        max_pixels=max_pixels,
        precision=precision,
    )
    say(console, f"{predicted.written} masks and overlays in {out}")
    end_with(predicted.failed)


@app.command()
def check(config: ConfigArgument, overrides: Overrides = None, verbose: Verbose = False) -> None:
    """Read the whole data set of a configuration: print counts, sizes, class shares and every problem."""
    from u2pl.commands.check import check as run_check

    if not run_check(config, overrides or (), console, verbose=verbose):
        raise typer.Exit(2)


for command in (assess, suggest, export_masks, import_masks, distill, report, export, push, compare, ablate):
    app.command()(command)


@app.command("import-weights")
def import_weights(
    released: Annotated[
        Path,
        typer.Argument(parser=argument("RELEASED"), help="A checkpoint saved by the code released with the paper."),
    ],
    out: Annotated[
        Path, typer.Option(parser=output(), help="File to write, FILE.safetensors, for `u2pl predict` and `evaluate`.")
    ],
    classes: Annotated[int | None, typer.Option(help="Expected number of classes; others are an error.")] = None,
    network: Annotated[
        str | None, typer.Option(help="`teacher` or `student`. Default: the teacher if it exists.")
    ] = None,
    output_stride: Annotated[int, typer.Option(help="8 as released, or 16, which is faster and coarser.")] = 8,
) -> None:
    """Convert weights of the released code into a file for u2pl. Runs no code from the checkpoint."""
    from u2pl.commands.import_weights import import_released

    say(console, import_released(released, out, classes=classes, network=network, output_stride=output_stride))


app.command()(presets)
app.command()(keys)
app.command("convert-config")(convert_config)


def _finish(folder: Path, scores: dict) -> None:  # type: ignore[type-arg]
    from u2pl.report.table import score_table

    if scores:
        difference = " - ".join(reversed(scores))
        show(console, score_table(scores, title="validation, IoU %", difference=difference))
    say(console, f"weights, metrics and curves in {folder}")


def main() -> None:
    """Entry point. Bad input gives one line on stderr and exit code 2; a signal gives one, and 128 + its number."""
    spin_shortly()
    accept_all_text()
    stop_on_signals()
    try:
        app()
    except InputError as error:
        complain(f"u2pl: {error}")
        sys.exit(2)
    except Stopped as stopped:
        complain(f"u2pl: {stopped}{_how_to_go_on(stopped)}")
        sys.exit(128 + stopped.number)


def _how_to_go_on(stopped: Stopped) -> str:
    """The command that goes on after a stop, if something was saved."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command not in ("train", "distill", "assess", "suggest", "compare", "ablate", "demo", "push"):
        return ""
    line = shlex.join(["u2pl", *sys.argv[1:]])
    line += " --resume" if command == "train" and "--resume" not in sys.argv else ""
    saved = "" if stopped.step is None else f" after step {stopped.step}, which is saved"
    return f"{saved}; to go on: {line}"
