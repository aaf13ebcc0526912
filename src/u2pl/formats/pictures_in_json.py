"""Small png files inside of json texts."""

from __future__ import annotations

import base64
import zlib
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2pl.errors import InputError

_LARGEST = 2**28  # bytes of a png
_PNG = b"\x89PNG"


def pixels_from(text: str, *, where: str, packed: bool) -> npt.NDArray[np.bool_]:
    """(h, w) pixels of a png in base64, ``packed`` by zlib or not: those that are opaque, or not 0 without opacity.

    Raises InputError, which begins with ``where``, for anything else.
    """
    try:
        data = base64.b64decode(text, validate=True)
        if packed and not data.startswith(_PNG):  # old projects hold it as it is
            data = zlib.decompressobj().decompress(data, _LARGEST)
        with Image.open(BytesIO(data), formats=("PNG",)) as file:
            if file.mode in ("RGBA", "LA", "PA") or "transparency" in file.info:
                return np.array(file.convert("RGBA"))[..., 3] > 0
            values = np.array(file)
    except Exception as error:  # a damaged file can raise anything
        raise InputError(f"{where}: the picture of a mask is damaged ({type(error).__name__}); draw it anew") from error
    return np.asarray(values > 0 if values.ndim == 2 else values.any(axis=2))
