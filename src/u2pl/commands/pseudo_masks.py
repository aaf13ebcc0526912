"""A teacher labels unlabeled images, once: each gets a file with its pseudo-mask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import Tensor

from u2pl.commands.segmenting import segmented
from u2pl.data.pseudo_masks import mask_path
from u2pl.data.source import Sample
from u2pl.engine.checkpoint import unwritable, write_atomically, write_text_atomically
from u2pl.errors import InputError, quoted
from u2pl.paths import read_text
from u2pl.predictor import Predictor
from u2pl.report.pictures import save_mask

#: What a folder of pseudo-masks says about how they were made.
TEACHER = "teacher.json"


@dataclass(frozen=True)
class Labelling:
    """How a teacher labels images: with more views than a run is evaluated with, because each is labeled only once.

    Args:
        scales: factors of the image's size, over which probabilities are averaged.
        flip: also average over the mirror image at each scale.
        min_confidence: pixels whose most likely class has a lower probability get 255 and do not train; 0: all train.
        precision: of the network: fp32, bf16 or auto.

    Raises InputError for a confidence outside [0, 1).
    """

    scales: tuple[float, ...] = (0.75, 1.0, 1.25)
    flip: bool = True
    min_confidence: float = 0.0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence < 1:
            raise InputError(f"--min-confidence {self.min_confidence}: should be at least 0 and less than 1")

    def overrides(self) -> list[str]:
        """The keys of `evaluation` that make a predictor work so."""
        return [f"evaluation.scales={list(self.scales)}", f"evaluation.flip={str(self.flip).lower()}"]


def parse_scales(text: str) -> tuple[float, ...]:
    """Scales such as ``0.75,1,1.25``. Raises InputError for anything else."""
    try:
        return tuple(float(scale) for scale in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--scales {quoted(text)}: should be numbers with commas between them, such as 0.75,1"
        ) from error


def made_by(weights: Path, labelling: Labelling, predictor: Predictor) -> dict[str, Any]:
    """What pseudo-masks depend on besides the images: the digest of the teacher's weights, and the labelling."""
    return {
        "weights": weights_digest(weights),
        **asdict(labelling),
        "scales": list(labelling.scales),
        "precision": predictor.precision,
    }


def weights_digest(weights: Path) -> str:
    """SHA-256 of a file of weights. Its description is digested, too: it has the options of the evaluation."""
    digest = hashlib.sha256()
    with weights.open("rb") as file:
        for block in iter(partial(file.read, 2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def refuse_other_teacher(folder: Path, teacher: Mapping[str, Any]) -> None:
    """Raise InputError if a folder holds pseudo-masks of another teacher or labelling, or other files."""
    path = folder / TEACHER
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"--out {folder.parent}: {folder} exists, but `u2pl distill` did not make it; choose another"
            )
        return
    try:
        before = dict(json.loads(read_text(path, give="restore it, or choose another --out")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read (it is no JSON object); choose another --out") from error
    if before.get("weights") != teacher["weights"]:
        raise InputError(f"--out {folder.parent}: its pseudo-masks are of another teacher; choose another --out")
    for key, value in teacher.items():
        if before.get(key) != value:
            raise InputError(
                f"--{key.replace('_', '-')}: is {value} now, but the pseudo-masks in {folder} were made with "
                f"{before.get(key)}; give the same, or choose another --out"
            )


def write_pseudo_masks(
    predictor: Predictor,
    samples: Sequence[Sample],
    folder: Path,
    teacher: Mapping[str, Any],
    *,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a palette png of class indices for each sample that has none yet, at the size of the sample's image.

    A file is written completely or not at all, so a command that was killed goes on where it was.

    Args:
        predictor: gets the samples' images as they are read; its ``scale`` is 1.
        teacher: of :func:`made_by`; written beside the masks.
        progress: called with (images done, images to do), first with 0.

    Raises InputError if the folder holds other files, an image cannot be read, or a mask cannot be written.
    """
    refuse_other_teacher(folder, teacher)
    try:
        for parent in {mask_path(folder, sample).parent for sample in samples}:
            parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    if not (folder / TEACHER).exists():
        write_text_atomically(folder / TEACHER, json.dumps(teacher, indent=1) + "\n")
    waiting = [sample for sample in samples if not mask_path(folder, sample).is_file()]
    if len(waiting) < len(samples):
        say(f"{len(samples) - len(waiting)} of {len(samples)} images have their pseudo-masks already")
    if not waiting:
        return

    def write(sample: Sample, image: Tensor, mask: Tensor) -> None:
        write_atomically(mask_path(folder, sample), partial(save_mask, mask=mask, palette=predictor.palette))

    began = perf_counter()
    progress(0, len(waiting))
    with closing(segmented(waiting, predictor, write, min_confidence=teacher["min_confidence"])) as written:
        for done, _ in enumerate(written, start=1):
            progress(done, len(waiting))
    say(f"{len(waiting)} pseudo-masks in {folder} ({len(waiting) / (perf_counter() - began):.1f} images/s)")
