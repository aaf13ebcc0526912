"""Small pictures of a report, kept with the run: a later report shows them if the images are gone."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from u2pl.engine.checkpoint import write_atomically
from u2pl.errors import InputError
from u2pl.report.html.measuring import BINS, Calibration, Measured, Shot

KEPT = "gallery.zip"
IMAGES = 12  #: that are kept
_SIDE, _SMALLEST = 160, 48  # pixels of the longer side
_BYTES = 300_000  # of all pictures
_LIST = "gallery.json"
_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, ValueError, TypeError, RuntimeError)


def keep(path: Path, measured: Measured) -> None:
    """Write some of the shots, evenly spread from the worst to the best, and what all predictions counted.

    The file takes about 300 kB at most. Without shots nothing is written.
    """
    last = len(measured.shots) - 1
    if last < 0:
        return
    places = sorted({round(place * last / (IMAGES - 1)) for place in range(IMAGES)})
    shots = [measured.shots[place] for place in places]
    most = math.log(max(2, len(measured.confusion)))
    side, files = _SIDE, _pictures(shots, _SIDE, most)
    while sum(map(len, files.values())) > _BYTES and side > _SMALLEST:
        side = max(_SMALLEST, int(0.8 * side))
        files = _pictures(shots, side, most)
    counted: dict[str, Any] = {
        "shots": [{"name": shot.name, "score": shot.score} for shot in shots],
        "images": measured.images,
        "confusion": measured.confusion.tolist(),
        "pixels": measured.calibration.pixels.tolist(),
        "right": measured.calibration.right.tolist(),
        "confidence": measured.calibration.confidence.tolist(),
    }

    def write(target: Path) -> None:
        with zipfile.ZipFile(target, "w") as archive:
            for name, content in {_LIST: json.dumps(counted).encode(), **files}.items():
                archive.writestr(zipfile.ZipInfo(name), content)  # without the time: equal shots give equal files

    write_atomically(path, write)


def kept(path: Path, classes: int) -> Measured:
    """What :func:`keep` wrote. Entropies are rounded to 256 levels.

    Raises InputError if the file is missing, is damaged, or is of another number of classes.
    """
    if not path.exists():
        raise InputError(f"{path} is missing, so there are no pictures of the end of the training")
    most = math.log(max(2, classes))
    try:
        with zipfile.ZipFile(path) as archive:
            told = json.loads(archive.read(_LIST))
            shots = [_shot(archive, place, each, most) for place, each in enumerate(told["shots"])]
        confusion = torch.tensor(told["confusion"], dtype=torch.int64).reshape(classes, classes)
        calibration = Calibration(
            torch.tensor(told["pixels"], dtype=torch.int64).reshape(BINS),
            torch.tensor(told["right"], dtype=torch.int64).reshape(BINS),
            torch.tensor(told["confidence"], dtype=torch.float64).reshape(BINS),
        )
        return Measured(shots, confusion, calibration, (), images=int(told["images"]))
    except _UNREADABLE as error:
        raise InputError(f"{path} is damaged; remove it to report without pictures") from error


def _pictures(shots: list[Shot], side: int, most: float) -> dict[str, bytes]:
    """The files of all shots, by name."""
    files = {}
    for place, shot in enumerate(each.resized(side) for each in shots):
        levels = np.rint(255 * np.clip(shot.entropy / most, 0, 1)).astype(np.uint8)
        files[f"{place}/image.jpg"] = _encoded(Image.fromarray(shot.image), "JPEG", quality=80)
        for name, pixels in (("truth", shot.truth), ("mask", shot.mask), ("entropy", levels)):
            files[f"{place}/{name}.png"] = _encoded(Image.fromarray(pixels), "PNG", optimize=True)
    return files


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def _shot(archive: zipfile.ZipFile, place: int, told: dict[str, Any], most: float) -> Shot:
    image, truth, mask, levels = (
        np.array(Image.open(io.BytesIO(archive.read(f"{place}/{name}"))).convert(mode))
        for name, mode in (("image.jpg", "RGB"), ("truth.png", "L"), ("mask.png", "L"), ("entropy.png", "L"))
    )
    if not image.shape[:2] == truth.shape == mask.shape == levels.shape:
        raise ValueError("pictures of one image have several sizes")
    entropy = (levels.astype(np.float32) / 255 * most).astype(np.float32)
    return Shot(str(told["name"]), float(told["score"]), image, truth, mask, entropy)
