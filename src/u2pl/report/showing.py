"""An image with its mask and the names of its classes, as one picture: for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from u2pl.data.classes import Palette
from u2pl.data.readers.pascal_voc import voc_palette
from u2pl.errors import InputError
from u2pl.printable import printable
from u2pl.report.pictures import colour_table, overlay
from u2pl.structures import IGNORE_INDEX

Picture = Tensor | np.ndarray | Image.Image | str | Path
_LINE, _MARGIN = 20, 6  # pixels of the legend
_FONT = 14


def show(
    image: Picture,
    mask: Picture | None = None,
    *,
    classes: Sequence[str] = (),
    palette: Palette = (),
    strength: float = 0.55,
) -> Image.Image:
    """An image tinted with its mask, above a legend of the classes that the mask shows. Notebooks display the result.

    Args:
        image: (3, H, W) or (H, W, 3) uint8, a PIL image, or the path of a file.
        mask: (H, W) class indices, 255 for ignored pixels, as an array, a PIL image or the path of a file; None: none.
        classes: their names; empty: their numbers.
        palette: RGB per class; empty: the colours of PASCAL VOC.
        strength: of the tint, from 0 to 1.

    Raises InputError if the two differ in size, or a value of the mask has no class.
    """
    pixels = _rgb(image)
    if mask is None:
        return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
    indices = _indices(mask)
    if indices.shape != pixels.shape[1:]:
        raise InputError(
            f"show: the mask is {tuple(indices.shape)}, the image {tuple(pixels.shape[1:])}; give equal sizes"
        )
    shown = [value for value in indices.unique().tolist() if value != IGNORE_INDEX]
    if classes and shown and shown[-1] >= len(classes):
        raise InputError(f"show: the mask holds {shown[-1]}, but there are {len(classes)} classes; give all names")
    palette = palette or voc_palette(max([*shown, len(classes) - 1, 0]) + 1)
    tinted = overlay(pixels, indices, palette, strength=strength).permute(1, 2, 0).numpy()
    names = [
        (printable(classes[value]) if classes else str(value), tuple(colour_table(palette)[value])) for value in shown
    ]
    return _with_legend(Image.fromarray(np.ascontiguousarray(tinted)), names)


def _rgb(image: Picture) -> Tensor:
    """(3, H, W) uint8."""
    if isinstance(image, (str, Path)):
        with Image.open(image) as file:
            image = file.convert("RGB")
    if isinstance(image, Image.Image):
        image = np.array(image.convert("RGB"))
    pixels = torch.as_tensor(image).cpu()
    if pixels.ndim == 3 and pixels.shape[0] != 3 and pixels.shape[2] == 3:
        pixels = pixels.permute(2, 0, 1)
    if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.dtype != torch.uint8:
        raise InputError(f"show: the image is {tuple(pixels.shape)} {pixels.dtype}; give (3, H, W) or (H, W, 3) uint8")
    return pixels


def _indices(mask: Picture) -> Tensor:
    """(H, W) uint8."""
    if isinstance(mask, (str, Path)):
        with Image.open(mask) as file:
            mask = np.array(file)
    values = torch.as_tensor(np.array(mask) if isinstance(mask, Image.Image) else mask).cpu()
    if (
        values.ndim != 2
        or values.is_floating_point()
        or (values.numel() and not 0 <= values.min() <= values.max() <= 255)
    ):
        raise InputError(f"show: the mask is {tuple(values.shape)} {values.dtype}; give (H, W) class indices up to 255")
    return values.to(torch.uint8)


def _with_legend(picture: Image.Image, names: Sequence[tuple[str, tuple[int, ...]]]) -> Image.Image:
    """The picture above the names with their colours, in as many lines as they need."""
    font = ImageFont.load_default(_FONT)
    places, left, line = [], _MARGIN, 0
    for name, colour in names:
        width = int(font.getlength(name)) + _LINE + 2 * _MARGIN
        if left > _MARGIN and left + width > picture.width:
            left, line = _MARGIN, line + 1
        places.append((left, line, name, colour))
        left += width
    if not places:
        return picture
    sheet = Image.new("RGB", (picture.width, picture.height + (line + 1) * _LINE + _MARGIN), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for left, line, name, colour in places:
        top = picture.height + _MARGIN + line * _LINE
        draw.rectangle((left, top, left + _FONT, top + _FONT), fill=colour, outline="black")
        draw.text((left + _LINE, top - 1), name, fill="black", font=font)
    return sheet
