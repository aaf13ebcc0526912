"""The command `u2pl predict`: image files -> mask files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console

from u2pl.commands.segmenting import segmented
from u2pl.data.files import FileSample
from u2pl.data.splits import IMAGE_SUFFIXES, is_image
from u2pl.data.walking import files_below
from u2pl.engine.checkpoint import write_atomically
from u2pl.engine.machine import make_fabric
from u2pl.errors import InputError
from u2pl.paths import is_inside
from u2pl.predictor import Predictor
from u2pl.report.pictures import is_signed, overlay, save_image, save_mask
from u2pl.report.printing import progress_bar, track


@dataclass
class Predicted:
    """What became of the images of one command."""

    written: int = 0  #: images with a mask and an overlay
    failed: list[str] = field(default_factory=list)  #: why others have none, one line each


def predict_files(
    run: Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    console: Console,
    weights: str = "last",
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    strict: bool = False,
    max_pixels: int | None = None,
    device: str | torch.device | None = None,
    precision: str = "fp32",
) -> Predicted:
    """Write ``STEM.png`` (palette png of class indices) and ``STEM_overlay.jpg`` for each image, at its own size.

    Folders are searched with their subfolders, and outputs keep the relative paths. An image that cannot be read is
    left out. Threads read images ahead of the network and write files behind it. Raises InputError before it writes
    anything if an input is missing or holds no image, two images would get the same mask, or an output would replace an
    image or a file of others.

    Args:
        overrides: keys such as ``evaluation.flip=true`` or ``data.bands=[2,1,0]``.
        overwrite: also replace files that this command did not write.
        strict: raise InputError, before anything is written, if an image cannot be read.
        max_pixels: of an image; None: Pillow's limit, 179 million.
        device: None: the GPU if there is one.
        precision: of the network: fp32, bf16 or auto.
    """
    targets = _targets(inputs, out)
    _refuse_replacing(targets, out, overwrite=overwrite)
    allow_pixels(max_pixels)
    if device is None:
        device = make_fabric(accelerator="auto", devices=1, nodes=1, precision="fp32").device
    predictor = Predictor.load(run, weights=weights, device=device, overrides=overrides, precision=precision)
    count, reader = len(predictor.classes), predictor.reader
    samples = [FileSample(stem, path, None, count, reader=reader) for stem, path in targets.items()]
    if strict:
        _read_all(samples, console)
    predicted = Predicted()
    with progress_bar(console) as bar:
        task = bar.add_task("predicting", total=len(samples))

        def failed(error: InputError) -> None:
            predicted.failed.append(str(error))
            bar.advance(task)

        def write(sample: FileSample, image: torch.Tensor, mask: torch.Tensor) -> None:
            _write(sample.name, out, predictor, image, mask)

        with closing(segmented(samples, predictor, write, failed=failed)) as written:
            for _ in written:
                predicted.written += 1
                bar.advance(task)
    return predicted


def allow_pixels(count: int | None) -> None:
    """Let Pillow open images of at most this many pixels; None: of its usual limit."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # half of the limit is no news
    if count is not None:
        Image.MAX_IMAGE_PIXELS = -(-count // 2)  # Pillow refuses what has more than twice as many


def _read_all(samples: Sequence[FileSample], console: Console) -> None:
    """Decode all images, because only that finds a truncated one."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        read = threads.map(lambda sample: sample.image() is None, samples)
        for _ in track(read, "reading", total=len(samples), console=console):
            pass


def _write(stem: str, out: Path, predictor: Predictor, image: torch.Tensor, mask: torch.Tensor) -> None:
    mask_path, overlay_path = _written(stem, out)
    try:
        mask_path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot write there ({error.strerror})") from error
    write_atomically(mask_path, partial(save_mask, mask=mask, palette=predictor.palette))
    picture = overlay(image, mask, predictor.palette)
    write_atomically(overlay_path, partial(save_image, image=picture, kind="JPEG"))


def _written(stem: str, out: Path) -> tuple[Path, Path]:
    """The paths of an image's mask and overlay."""
    return out / f"{stem}.png", out / f"{stem}_overlay.jpg"


def _refuse_replacing(targets: Mapping[str, Path], out: Path, *, overwrite: bool) -> None:
    images = {path.resolve() for path in targets.values()}
    for stem, path in targets.items():
        for written in _written(stem, out):
            if written.resolve() in images:
                raise InputError(
                    f"--out {out}: what is written for {path} would replace the image {written}; choose another folder"
                )
            if not overwrite and written.exists() and not is_signed(written):
                raise InputError(
                    f"--out {out}: {written} exists, and `u2pl predict` did not write it; choose another folder, or "
                    "add --overwrite"
                )


def _targets(inputs: Sequence[Path], out: Path) -> dict[str, Path]:
    """The images by the name of their mask without its ending. What this command wrote is left out."""
    found: dict[str, Path] = {}
    for given in inputs:
        if not given.exists():
            raise InputError(f"{given} is missing; give images or folders of images")
        base = given if given.is_dir() else given.parent
        images = _images_below(given, out) if given.is_dir() else [path for path in [given] if is_image(path)]
        if not images:
            raise InputError(f"{given} holds no image (known: {', '.join(sorted(IMAGE_SUFFIXES))})")
        for path in images:
            stem = str(path.relative_to(base).with_suffix(""))
            if stem in found and found[stem] != path:
                raise InputError(f"{path} and {found[stem]} would get the same mask; predict them into two folders")
            found[stem] = path
    return found


def _images_below(folder: Path, out: Path) -> list[Path]:
    """The images below a folder, but for those that this command wrote into ``out``, if that lies inside."""
    images, _ = files_below(folder, is_image)
    if not is_inside(out, folder):
        return images
    return [path for path in images if not (is_inside(path, out) and is_signed(path))]
