"""Which image a task of Label Studio is about: the key of its data, and the file that its address names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from u2pl.data.splits import IMAGE_SUFFIXES
from u2pl.errors import InputError
from u2pl.formats.reading import xml_of

#: The labeling interface of a project, beside its tasks.
INTERFACE = "labeling.xml"
#: The key of the image in most projects.
USUAL = "image"
_UPLOAD = re.compile(r"/data/upload/\d+/(?:[0-9a-f]{8}-)?")


def file_of(image: str) -> str:
    """The path of an image below the folder of all images, from its address in a task."""
    try:
        parts = urlsplit(image)
    except ValueError:  # no address
        return image
    if parts.query.startswith("d="):
        return unquote(parts.query[2:]).lstrip("/")
    if found := _UPLOAD.match(parts.path):
        return unquote(parts.path[found.end() :])
    return PurePosixPath(unquote(parts.path)).name if parts.scheme else unquote(image).lstrip("/")


def addresses(data: Mapping[str, Any]) -> dict[str, str]:
    """The values of a task's data that are addresses of images, by their key: by their ending."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    return {key: text for key, text in texts.items() if PurePosixPath(file_of(text)).suffix.lower() in IMAGE_SUFFIXES}


def image_of(data: Mapping[str, Any], drawn_on: Collection[str], home: Path, where: str) -> str:
    """The address of the image that a task is about.

    Args:
        data: of the task.
        drawn_on: names of the images in the labeling interface on which its areas are; empty: unknown.
        home: folder of the tasks, with the labeling interface if it is known.
        where: begins the message of an error.

    Raises InputError if the areas are on several images, or it is not clear on which of several.
    """
    if len(drawn_on) > 1:
        raise InputError(f"{where}: its areas are on several images ({', '.join(sorted(drawn_on))}); give each a task")
    images = addresses(data)
    keys = [*drawn_on, USUAL, *(images if len(images) == 1 else ())]
    key = next((key for key in keys if data.get(key) and isinstance(data[key], str)), None)
    if key is None:
        key = _by_interface(home / INTERFACE, drawn_on)
    if key is not None and data.get(key) and isinstance(data[key], str):
        return str(data[key])
    if not images:
        raise InputError(f"{where}: no value of its data is the address of an image; give tasks of images")
    raise InputError(
        f"{where}: its data name several images ({', '.join(sorted(images))}); save the labeling interface as "
        f"{INTERFACE} beside the file, or leave one"
    )


def _by_interface(path: Path, drawn_on: Collection[str]) -> str | None:
    """The key of the data that the labeling interface shows as the image; None if it does not say."""
    if not path.is_file():
        return None
    shown = {each.get("name"): each.get("value", "") for each in xml_of(path, "Label Studio").iter("Image")}
    values = [shown[name] for name in drawn_on if name in shown] or [*shown.values()]
    return values[0].removeprefix("$") if len(values) == 1 else None
