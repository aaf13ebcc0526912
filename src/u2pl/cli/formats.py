"""The commands that exchange masks with annotation tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from u2pl.cli.failures import end_with
from u2pl.paths import argument, output
from u2pl.report.printing import say

console = Console()

_FORMATS = "png, colour-png, coco, cvat, label-studio, labelme, supervisely or voc"
Format = Annotated[str, typer.Option("--format", help=f"Of the annotation tool: {_FORMATS}.")]


def export_masks(
    run: Annotated[
        Path, typer.Argument(parser=argument("RUN"), help="A run folder made by `u2pl train`, or a .safetensors file.")
    ],
    images: Annotated[
        Path,
        typer.Argument(parser=argument("DIR"), help="A folder of images, or what `u2pl suggest` wrote.", metavar="DIR"),
    ],
    format: Format,
    out: Annotated[Path, typer.Option(parser=output(), help="An empty or new folder for the files of the tool.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Keys of the run to change, such as evaluation.flip=true.")
    ] = None,
    shapes: Annotated[
        str | None,
        typer.Option(help="polygons, rle (pixel for pixel, as brushes) or masks (cvat only). Default: polygons."),
    ] = None,
    objects: Annotated[
        str, typer.Option(help="`parts`: one object for each connected part; `classes`: one for each class.")
    ] = "parts",
    tolerance: Annotated[
        float, typer.Option(help="Pixels by which polygons may miss the border. Up to 0.35 no pixel changes.")
    ] = 0.35,
    min_confidence: Annotated[float, typer.Option(help="Pixels of which the model is less sure are unsure.")] = 0.0,
    unsure: Annotated[
        str, typer.Option(help="Unsure pixels are left out (`ignore`), or a `class` called ?.")
    ] = "ignore",
    background: Annotated[str | None, typer.Option(help="A class that gets no shapes.")] = None,
    weights: Annotated[str, typer.Option(help="`last` or `best` (highest validation mIoU).")] = "last",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or auto (bf16 where native).")] = "fp32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that holds files.")] = False,
) -> None:
    """Draw masks of images with a trained model, as drafts for an annotation tool."""
    from u2pl.commands.drafts import export_drafts
    from u2pl.commands.export_masks import DraftOptions
    from u2pl.errors import InputError, quoted

    if objects not in ("parts", "classes"):
        raise InputError(f"--objects {quoted(objects)}: should be parts or classes")
    drafted = export_drafts(
        run,
        images,
        out,
        DraftOptions(format, shapes, objects == "classes", tolerance, unsure, background),
        console=console,
        weights=weights,
        overrides=overrides or (),
        min_confidence=min_confidence,
        overwrite=overwrite,
        precision=precision,
    )
    say(console, f"drafts of {drafted.written} images in {out}")
    end_with(drafted.failed)


def import_masks(
    file: Annotated[
        Path, typer.Argument(parser=argument("FILE"), help="A json, xml, zip or folder, as the tool exported it.")
    ],
    format: Format,
    out: Annotated[Path, typer.Option(parser=output(), help="Folder for masks/STEM.png and classes.txt.")],
    images: Annotated[
        Path | None,
        typer.Option(parser=argument("--images"), help="Folder of the images, to find them by name and check sizes."),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(parser=argument("--classes"), help="Names of the classes, one a line, in the order of indices."),
    ] = None,
    background: Annotated[
        str | None, typer.Option(help="The class of pixels without annotation. Default: they are ignored (255).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also replace masks that u2pl did not write.")] = False,
) -> None:
    """Turn what an annotation tool exported into masks to train on."""
    from u2pl.commands.import_masks import import_masks as run_import

    done = run_import(
        file,
        out,
        format=format,
        console=console,
        images=images,
        classes=classes,
        background=background,
        overwrite=overwrite,
    )
    for note in done.notes:
        say(console, note)
    say(console, f"{done.written} masks of {len(done.classes)} classes in {out / 'masks'}")
