"""A sheet of small pictures, to look at many images at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from u2pl.data.classes import Palette
from u2pl.report.pictures import fitting, overlay

_COLUMNS = 5
_WIDTH, _HEIGHT, _TITLE, _GAP = 256, 224, 14, 6


def thumbnail(image: Tensor, mask: Tensor, palette: Palette) -> Tensor:
    """(3, h, w) uint8: the image tinted with the colours of its mask, small enough for a sheet.

    Args:
        image: (3, H, W) uint8.
        mask: (H, W) uint8, class index, or 255, which is white.
    """
    height, width = image.shape[-2:]
    scale = min(1.0, _WIDTH / width, _HEIGHT / height)
    size = [max(1, round(scale * height)), max(1, round(scale * width))]
    small = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
    return overlay(small, F.interpolate(mask[None, None], size=size)[0, 0], palette)


def save_contact_sheet(path: Path, pictures: Sequence[Tensor], titles: Sequence[str]) -> None:
    """Write pictures of :func:`thumbnail` in rows as a png, with a title above each."""
    columns = min(_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    wide, high = _WIDTH + _GAP, _TITLE + max(picture.shape[1] for picture in pictures) + _GAP
    sheet = Image.new("RGB", (columns * wide - _GAP, rows * high - _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        left, top = number % columns * wide, number // columns * high
        draw.text((left + 2, top + 1), fitting(draw, title, _WIDTH), fill="black")
        pixels = Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()))
        sheet.paste(pixels, (left, top + _TITLE))
    sheet.save(path, format="PNG")
