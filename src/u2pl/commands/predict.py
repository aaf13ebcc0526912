"""The command `u2pl predict`: image files -> mask files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from rich.console import Console

from u2pl.data.files import FileSample
from u2pl.data.splits import IMAGE_SUFFIXES, is_image
from u2pl.data.walking import files_below
from u2pl.engine.machine import make_fabric
from u2pl.errors import InputError
from u2pl.predictor import Predictor
from u2pl.report.pictures import overlay, save_image, save_mask
from u2pl.report.printing import track


def predict_files(
    run: Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    console: Console,
    weights: str = "last",
    device: str | torch.device | None = None,
) -> int:
    """Write ``STEM.png`` (palette png of class indices) and ``STEM_overlay.jpg`` for each image, at its own size.

    Folders are searched with their subfolders, and outputs keep the relative paths. Returns the number of images.
    Raises InputError before it writes anything if an input is missing or holds no image, an image cannot be read, two
    images would get the same mask, or an output would replace an image.

    Args:
        device: None: the GPU if there is one.
    """
    targets = _targets(inputs)
    _refuse_replacing(targets, out)
    if device is None:
        device = make_fabric(accelerator="auto", devices=1, nodes=1, precision="fp32").device
    predictor = Predictor.load(run, weights=weights, device=device)
    count, reader = len(predictor.classes), predictor.reader
    samples = [FileSample(stem, path, None, count, reader=reader) for stem, path in targets.items()]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        read = threads.map(_decode, samples)
        for _ in track(read, "reading", total=len(samples), console=console):
            pass
    for sample in track(samples, "predicting", total=len(samples), console=console):
        stem, image = sample.name, sample.image()
        prediction = predictor(image)
        mask_path, overlay_path = _written(stem, out)
        try:
            mask_path.parent.mkdir(parents=True, exist_ok=True)
            save_mask(mask_path, prediction.mask, predictor.palette)
            save_image(overlay_path, overlay(image, prediction.mask, predictor.palette))
        except OSError as error:
            raise InputError(f"--out {out}: cannot write there ({error.strerror})") from error
    return len(targets)


def _decode(sample: FileSample) -> None:
    """Decode an image, because only that finds a truncated one."""
    sample.image()


def _written(stem: str, out: Path) -> tuple[Path, Path]:
    """The paths of an image's mask and overlay."""
    return out / f"{stem}.png", out / f"{stem}_overlay.jpg"


def _refuse_replacing(targets: Mapping[str, Path], out: Path) -> None:
    images = {path.resolve() for path in targets.values()}
    for stem, path in targets.items():
        for written in _written(stem, out):
            if written.resolve() in images:
                raise InputError(
                    f"--out {out}: what is written for {path} would replace the image {written}; choose another folder"
                )


def _targets(inputs: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for given in inputs:
        if not given.exists():
            raise InputError(f"{given} is missing; give images or folders of images")
        base = given if given.is_dir() else given.parent
        images = files_below(base, is_image)[0] if given.is_dir() else [path for path in [given] if is_image(path)]
        if not images:
            raise InputError(f"{given} holds no image (known: {', '.join(sorted(IMAGE_SUFFIXES))})")
        for path in images:
            stem = str(path.relative_to(base).with_suffix(""))
            if stem in found and found[stem] != path:
                raise InputError(f"{path} and {found[stem]} would get the same mask; predict them into two folders")
            found[stem] = path
    return found
