"""The folder of a run: what it begins with, and whether it can be gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from u2pl.config import Config
from u2pl.data.source import DataSource
from u2pl.engine.checkpoint import write_text_atomically
from u2pl.errors import InputError
from u2pl.predictor import Predictor
from u2pl.recipes import load_config
from u2pl.report.pictures import coloured, overlay, save_panels

_PICTURES = 6


def check_folder(out: Path, config: Config, *, resume: bool) -> None:
    """Raise InputError when the folder holds a run that is not to be, or cannot be, resumed."""
    saved = out / "config.yaml"
    if saved.exists():
        if not resume:
            raise InputError(f"{out} already holds a run; add --resume to go on with it or choose another --out")
        before, now = load_config(saved).model_dump(), config.model_dump()
        for section in ("data", "network", "method", "train", "evaluation"):
            for key, value in now[section].items():
                if before[section][key] != value and key != "workers":
                    raise InputError(
                        f"{section}.{key}: is {value!r} now but {before[section][key]!r} in {saved}; "
                        "a run resumes with the configuration it began with"
                    )
        if before["seed"] != now["seed"]:
            raise InputError(f"seed: is {now['seed']} now but {before['seed']} in {saved}; resume with the same seed")


def make_folder(out: Path, config: Config) -> None:
    """Make the run folder with the configuration in it, unless it is there. Raises InputError when it cannot be."""
    saved = out / "config.yaml"
    if saved.exists():
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text_atomically(saved, config.to_yaml())
    except OSError as error:
        raise InputError(f"--out {out}: cannot write there ({error.strerror})") from error


def network_description(config: Config, source: DataSource) -> dict[str, Any]:
    """What it takes to build the trained network again and to name and colour its classes."""
    return {
        "classes": list(source.classes),
        "palette": [list(colour) for colour in source.palette],
        "lookup": None if source.lookup is None else list(source.lookup),
        "scale": config.data.scale or 1.0,
        "method": config.method.name,
        "contrast": config.method.contrast,
        "network": config.network.model_dump(exclude={"pretrained", "weights"}, exclude_none=True),
        "evaluation": config.evaluation.model_dump(),
    }


def save_pictures(out: Path, source: DataSource) -> None:
    """``pictures/validation.png``: image, truth and prediction of samples evenly spread over the validation set."""
    trained = Predictor.from_run(out)
    predictor = Predictor(  # samples come scaled
        trained.network, classes=trained.classes, palette=trained.palette, inference=trained.inference
    )
    rows = []
    for sample in source.val[:: -(-len(source.val) // _PICTURES)]:
        image = sample.image()
        truth, guess = coloured(sample.mask(), predictor.palette), predictor(image).mask
        rows.append((image, truth, overlay(image, guess, predictor.palette)))
    (out / "pictures").mkdir(exist_ok=True)
    save_panels(out / "pictures" / "validation.png", rows, ("image", "ground truth", "prediction"))
