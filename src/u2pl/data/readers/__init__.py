"""Readers, one file per layout: a data set on disk -> its samples, in three lists."""

from collections.abc import Callable

from u2pl.data.readers.cityscapes import cityscapes
from u2pl.data.readers.folder import folder
from u2pl.data.readers.gta5 import gta5
from u2pl.data.readers.pascal_voc import pascal_voc
from u2pl.data.readers.synthia import synthia
from u2pl.data.scenes.reader import scenes
from u2pl.data.source import DataSource

#: Readers by their name in a configuration. `scenes` are drawn on the fly.
READERS: dict[str, Callable[..., DataSource]] = {
    "scenes": scenes,
    "folder": folder,
    "pascal_voc": pascal_voc,
    "cityscapes": cityscapes,
    "gta5": gta5,
    "synthia": synthia,
}

__all__ = ["READERS"]
