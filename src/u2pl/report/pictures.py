"""Pictures: coloured masks, overlays, heat maps, and panels of them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from u2pl.data.classes import Palette
from u2pl.printable import printable
from u2pl.structures import IGNORE_INDEX

_IGNORED = (255, 255, 255)
_GAP, _TITLE = 4, 14
_SIGNATURE = "u2pl"  # in the files that `u2pl predict` writes, so that it may replace them
_ROWS = 64  # of an image, tinted at a time


def colour_table(palette: Palette) -> npt.NDArray[np.uint8]:
    """(256, 3) RGB by mask value; ignored pixels are white."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = palette
    table[IGNORE_INDEX] = _IGNORED
    return table


def save_mask(path: Path, mask: Tensor, palette: Palette) -> None:
    """Write a (H, W) uint8 mask as a palette png of class indices, with the colours of the classes."""
    image = Image.fromarray(mask.numpy(), mode="P")
    image.putpalette(colour_table(palette).tobytes())
    signature = PngInfo()
    signature.add_text("Software", _SIGNATURE)
    image.save(path, format="PNG", pnginfo=signature)


def is_signed(path: Path) -> bool:
    """Whether a file is a mask or a picture that this module wrote. False for one that cannot be read."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as file:
            signature = file.info.get("Software") or file.info.get("comment")
    except Exception:  # a damaged file can raise anything
        return False
    return signature in (_SIGNATURE, _SIGNATURE.encode())


def coloured(mask: Tensor, palette: Palette) -> Tensor:
    """(H, W) class indices -> (3, H, W) uint8 RGB."""
    return torch.from_numpy(colour_table(palette)[mask.numpy()]).permute(2, 0, 1)


def overlay(image: Tensor, mask: Tensor, palette: Palette, *, strength: float = 0.55) -> Tensor:
    """(3, H, W) uint8: the image tinted with the colours of the mask."""
    # Every mixture of a value with a colour is worked out once: (3, 256 classes x 256 values).
    values, colours = torch.arange(256.0), torch.from_numpy(colour_table(palette)).float()
    mixtures = torch.lerp(values.expand(3, 256, 256), colours.T.unsqueeze(2), strength).round().to(torch.uint8)
    table = mixtures.flatten(1).numpy()
    pixels, classes = image.permute(1, 2, 0).numpy(), mask.numpy()
    picture = np.empty(pixels.shape, dtype=np.uint8)
    for top in range(0, len(classes), _ROWS):  # large images have no room for an index of each pixel
        rows = slice(top, top + _ROWS)
        first = classes[rows].astype(np.intp) << 8
        for channel in range(3):
            picture[rows, :, channel] = table[channel].take(first + pixels[rows, :, channel])
    return torch.from_numpy(picture).permute(2, 0, 1)


def heat(values: Tensor, *, largest: float) -> Tensor:
    """(H, W) float -> (3, H, W) uint8, black at 0 through red to yellow and white at ``largest``."""
    level = (values / largest).clamp(0, 1) * 3
    return torch.stack([(level - start).clamp(0, 1) * 255 for start in (0.0, 1.0, 2.0)]).to(torch.uint8)


def trust(reliable: Tensor, unreliable: Tensor) -> Tensor:
    """(3, H, W) uint8: reliable pixels are green, unreliable ones red, others gray."""
    picture = torch.full((3, *reliable.shape), 128, dtype=torch.uint8)
    for mask, colour in ((reliable, (64, 160, 96)), (unreliable, (214, 69, 65))):
        picture[:, mask] = torch.tensor(colour, dtype=torch.uint8).unsqueeze(1)
    return picture


def save_image(path: Path, image: Tensor, *, kind: str | None = None) -> None:
    """Write a (3, H, W) uint8 RGB image. ``kind`` is its format; None: by the ending of ``path``."""
    pixels = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    signature = {"comment": _SIGNATURE.encode()} if kind == "JPEG" else {}
    pixels.save(path, format=kind, **signature)


def save_panels(path: Path, rows: Sequence[Sequence[Tensor]], titles: Sequence[str], *, zoom: int = 1) -> None:
    """Write rows of (3, H, W) uint8 pictures as one sheet, with a title above each column."""
    height, width = (max(picture.shape[axis] for row in rows for picture in row) * zoom for axis in (1, 2))
    size = (len(titles) * (width + _GAP) - _GAP, _TITLE + len(rows) * (height + _GAP) - _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((column * (width + _GAP) + 2, 1), fitting(draw, title, width), fill="black")
        for line, row in enumerate(rows):
            picture = Image.fromarray(np.ascontiguousarray(row[column].permute(1, 2, 0).numpy()))
            picture = picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)
            sheet.paste(picture, (column * (width + _GAP), _TITLE + line * (height + _GAP)))
    sheet.save(path)


def fitting(draw: ImageDraw.ImageDraw, title: str, width: int) -> str:
    """The beginning of a title that fits above its column, in the characters that every font has."""
    shown = printable(title).encode("ascii", "backslashreplace").decode("ascii")[:width]
    while shown and draw.textlength(shown) > width:
        shown = shown[:-1]
    return shown
