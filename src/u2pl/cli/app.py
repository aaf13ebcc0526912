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

from u2pl.cli.arguments import ConfigArgument, Overrides
from u2pl.cli.distill import distill
from u2pl.cli.experiments import ablate, assess, compare
from u2pl.cli.export import export
from u2pl.engine.stopping import Stopped, stop_on_signals
from u2pl.errors import InputError, quoted
from u2pl.paths import argument, output
from u2pl.report.printing import Styled, accept_all_text, complain, say, show
from u2pl.threads import spin_shortly

app = typer.Typer(
    help="Label-efficient semantic segmentation: U2PL. Start with `u2pl demo`, then `u2pl train folder data.root=DIR`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
splits = typer.Typer(help="Split files, which list the labeled images: fetch the published ones, or draw your own.")
app.add_typer(splits, name="splits", no_args_is_help=True)
console = Console()

RunArgument = Annotated[
    Path, typer.Argument(parser=argument("RUN"), help="A run folder made by `u2pl train`, or a .safetensors file.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print the full reasons of each choice.")]
Weights = Annotated[str, typer.Option(help="`last` (end of training) or `best` (highest validation mIoU).")]


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
    from u2pl.build.starting import network_keys
    from u2pl.commands.run_folder import resume_note
    from u2pl.commands.train import train as run_training
    from u2pl.config.overrides import load_config
    from u2pl.engine.machine import is_main_process
    from u2pl.report.progress import ProgressBar

    console.quiet = not is_main_process()
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
    run: RunArgument,
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
    if predicted.failed:
        for line in predicted.failed:
            complain(f"u2pl: {line}")
        raise typer.Exit(1)


@app.command()
def check(config: ConfigArgument, overrides: Overrides = None, verbose: Verbose = False) -> None:
    """Read the whole data set of a configuration: print counts, sizes, class shares and every problem."""
    from u2pl.commands.check import check as run_check

    if not run_check(config, overrides or (), console, verbose=verbose):
        raise typer.Exit(2)


app.command()(assess)
app.command()(distill)
app.command()(export)
app.command()(compare)
app.command()(ablate)


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


@app.command()
def presets(name: Annotated[str | None, typer.Argument(help="Print the YAML of this preset.")] = None) -> None:
    """List the presets, or print one."""
    from u2pl.config.preset_files import preset_about, preset_names

    if name is not None:
        if name not in preset_names():
            raise InputError(f"no preset {quoted(name)} (known: {', '.join(preset_names())})")
        from u2pl.config.reading import preset_text

        sys.stdout.write(preset_text(name))
        return
    for each in preset_names():
        say(console, Styled(f"{each:<22}", "bold"), f" {preset_about(each)}")


@app.command("keys")
def keys(
    section: Annotated[str | None, typer.Argument(help="A section or a key, such as train or method.contrast.")] = None,
    everyday: Annotated[bool, typer.Option("--everyday", help="Only the keys that most runs set.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the documentation page of all keys.")] = False,
) -> None:
    """List the keys of a configuration with their defaults and meanings."""
    from u2pl.config.reference import keys as find_keys
    from u2pl.config.reference import markdown as page
    from u2pl.report.keys_table import keys_table

    if markdown:
        sys.stdout.write(page())
        return
    show(console, keys_table([key for key in find_keys(section) if key.everyday or not everyday]))


@splits.command("fetch")
def fetch_splits(
    name: Annotated[str, typer.Argument(help="pascal (VOC 2012, classic and blender) or cityscapes.")],
    out: Annotated[
        Path, typer.Option(parser=output(), help="Folder for NAME/val.txt, NAME/COUNT/labeled.txt and unlabeled.txt.")
    ] = Path("splits"),
    url: Annotated[str | None, typer.Option(help="Another server: files are at URL/NAME/COUNT/labeled.txt.")] = None,
) -> None:
    """Fetch and check the split files published with the paper."""
    from u2pl.commands.splits import fetch_splits

    say(console, f"{fetch_splits(name, out, url=url)} files in {out / name}")


@splits.command("draw")
def draw_splits(
    config: ConfigArgument,
    labeled: Annotated[str, typer.Option(help="Number of labeled images, such as 46, or several: 23,46,92.")],
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the draw. Default: the configuration's.")] = None,
    out: Annotated[
        Path | None, typer.Option(parser=output(), help="Folder for COUNT/labeled.txt. Default: splits/CONFIG.")
    ] = None,
) -> None:
    """Draw split files from the labeled images of a data set. They cover every class that fits, rare ones first."""
    from u2pl.commands.splits import draw_splits, read_counts
    from u2pl.config.overrides import load_config

    folder = out or Path("splits") / Path(config).stem
    settings = load_config(config, [*(overrides or ()), *([] if seed is None else [f"seed={seed}"])])
    say(console, f"{draw_splits(settings, read_counts(labeled), folder)} files in {folder}")


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
    if command not in ("train", "distill", "assess", "compare", "ablate", "demo"):
        return ""
    line = shlex.join(["u2pl", *sys.argv[1:]])
    line += " --resume" if command == "train" and "--resume" not in sys.argv else ""
    saved = "" if stopped.step is None else f" after step {stopped.step}, which is saved"
    return f"{saved}; to go on: {line}"
