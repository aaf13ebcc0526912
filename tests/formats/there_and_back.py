"""Masks of every kind, and a way through a format and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from rich.console import Console

from u2pl.commands.export_masks import DraftOptions, export
from u2pl.commands.import_masks import Imported, import_masks
from u2pl.formats import Annotated

NAMES = ("sky", "road & 'path'", "Bäume")
KINDS = [
    *((name, None) for name in ("png", "colour-png", "voc")),
    *(
        (name, shapes)
        for name in ("coco", "cvat", "label-studio", "labelme", "supervisely")
        for shapes in ("polygons", "rle")
    ),
    ("cvat", "masks"),
]


@st.composite
def masks(draw: Callable[..., Any]) -> np.ndarray:
    """(H, W) uint8 of three classes and ignored pixels: noise, blocks, one value, a checkerboard, one pixel."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    values = st.sampled_from([0, 1, 2, 255])
    kind = draw(st.sampled_from(["noise", "blocks", "full", "checkerboard", "pixel"]))
    if kind == "noise":
        return draw(arrays.arrays(np.uint8, (height, width), elements=values))
    if kind == "blocks":
        return np.kron(
            draw(arrays.arrays(np.uint8, (-(-height // 3), -(-width // 3)), elements=values)), np.ones((3, 3), np.uint8)
        )
    first, second = draw(values), draw(values)
    mask = np.full((height, width), first, dtype=np.uint8)
    if kind == "checkerboard":
        mask[np.indices(mask.shape).sum(axis=0) % 2 == 1] = second
    elif kind == "pixel":
        mask[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = second
    return mask


def annotated(masks: dict[str, np.ndarray], images: Path | None = None) -> list[Annotated]:
    """Masks by the file of their image, with confidence; images are written where they should be."""
    items = []
    for file, mask in masks.items():
        path = None
        if images is not None:
            path = images / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((*mask.shape, 3), dtype=np.uint8)).save(path)
        items.append(Annotated(file, mask, np.full(mask.shape, 0.75, dtype=np.float32), path))
    return items


def exported(
    masks: dict[str, np.ndarray], out: Path, format: str, names: Sequence[str] = NAMES, **options: Any
) -> Path:
    """The folder with the files of a tool."""
    export(annotated(masks), out, names=names, options=DraftOptions(format, **options))
    return out


def imported(file: Path, out: Path, format: str, **options: Any) -> Imported:
    return import_masks(file, out, format=format, console=Console(file=StringIO()), **options)


def read_masks(out: Path) -> dict[str, np.ndarray]:
    """What was imported, by the stem of the image."""
    folder = out / "masks"
    return {
        path.relative_to(folder).with_suffix("").as_posix(): np.array(Image.open(path))
        for path in folder.rglob("*.png")
    }
