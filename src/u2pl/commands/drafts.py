"""The command `u2pl export-masks`: a trained network draws masks, as drafts for an annotation tool."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from u2pl.commands.export_masks import DraftOptions, Export
from u2pl.commands.segmenting import segmented
from u2pl.commands.suggestions import SUGGESTED, suggested_images
from u2pl.data.files import FileSample
from u2pl.data.splits import IMAGE_SUFFIXES, is_image
from u2pl.data.walking import files_below
from u2pl.engine.machine import make_fabric
from u2pl.errors import InputError
from u2pl.formats import Annotated
from u2pl.predictor import Predictor
from u2pl.report.printing import progress_bar


@dataclass
class Drafted:
    """What became of the images of one command."""

    written: int = 0
    failed: list[str] = field(default_factory=list)  #: why others have no draft, one line each


def export_drafts(
    run: Path,
    folder: Path,
    out: Path,
    options: DraftOptions,
    *,
    console: Console,
    weights: str = "last",
    overrides: Sequence[str] = (),
    min_confidence: float = 0.0,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    precision: str = "fp32",
) -> Drafted:
    """Draw masks of all images below a folder with a trained network, and write them in the format of a tool.

    Images that cannot be read are left out. Raises InputError before anything is written if ``folder`` holds no image,
    ``out`` holds files, or the run cannot be used.

    Args:
        folder: of images, or what `u2pl suggest` wrote: its images, then.
        min_confidence: pixels whose most likely class has a lower probability are ``options.unsure``.
    """
    if not 0 <= min_confidence < 1:
        raise InputError(f"--min-confidence {min_confidence}: should be at least 0 and less than 1")
    if options.background is not None and min_confidence > 0 and options.unsure == "ignore":
        raise InputError("--background: unsure pixels would become it, too; add --unsure class")
    images = _images(folder, options)
    if device is None:
        device = make_fabric(accelerator="auto", devices=1, nodes=1, precision="fp32").device
    predictor = Predictor.load(run, weights=weights, device=device, overrides=overrides, precision=precision)
    writer = Export(out, predictor.classes, predictor.palette, options, overwrite=overwrite)
    count, reader = len(predictor.classes), predictor.reader
    samples = [FileSample(file, path, None, count, reader=reader) for file, path in images.items()]
    drafted = Drafted()
    with progress_bar(console) as bar:
        task = bar.add_task("drawing", total=len(samples))

        def failed(error: InputError) -> None:
            drafted.failed.append(str(error))
            bar.advance(task)

        def write(sample: FileSample, image: torch.Tensor, drawn: torch.Tensor) -> None:
            mask, confidence = drawn.numpy()
            shares = confidence.astype(np.float32) / 255
            writer.add(Annotated(sample.name, mask, shares, sample.image_path))

        drawing = segmented(samples, predictor, write, failed=failed, min_confidence=min_confidence, confidence=True)
        with closing(drawing) as written:
            for _ in written:
                drafted.written += 1
                bar.advance(task)
    writer.finish(order=list(images))
    return drafted


def _images(folder: Path, options: DraftOptions) -> dict[str, Path]:
    """The images below a folder by their paths in it; of a folder of suggestions, the suggested images."""
    if not folder.is_dir():
        raise InputError(f"{folder} is missing or no folder; give a folder of images")
    if (folder / SUGGESTED).is_file():
        paths = suggested_images(folder)
        folder = Path(os.path.commonpath([path.parent for path in paths])) if paths else folder
    else:
        paths, _ = files_below(folder, is_image)
    if not paths:
        raise InputError(f"{folder} holds no image (known: {', '.join(sorted(IMAGE_SUFFIXES))})")
    flat = options.format == "voc"
    stems: dict[str, Path] = {}
    for path in paths:
        stem = path.stem if flat else str(path.relative_to(folder).with_suffix(""))
        if stem in stems:
            why = " in --format voc, which has no folders" if flat else ""
            raise InputError(f"{path} and {stems[stem]} would get the same mask{why}; rename one")
        stems[stem] = path
    return {path.relative_to(folder).as_posix(): path for path in paths}
