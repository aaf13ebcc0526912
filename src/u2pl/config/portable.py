"""A configuration that may leave the machine: without its paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from u2pl.config.fields import A_PATH, Section

_AnySection = TypeVar("_AnySection", bound=Section)


def without_paths(section: _AnySection) -> _AnySection:
    """A copy whose keys hold no path: they are null. Counts and shares in such keys stay."""
    changed: dict[str, Any] = dict.fromkeys(_paths_of(section))
    for name, value in section:
        if isinstance(value, Section):
            changed[name] = without_paths(value)
    return section.model_copy(update=changed)


def keys_with_paths(section: Section, above: str = "") -> Iterator[str]:
    """The keys that :func:`without_paths` sets to null, such as ``data.root``."""
    yield from (above + name for name in _paths_of(section))
    for name, value in section:
        if isinstance(value, Section):
            yield from keys_with_paths(value, f"{above}{name}.")


def _paths_of(section: Section) -> list[str]:
    fields = type(section).model_fields
    texts = ((name, value) for name, value in section if isinstance(value, str))
    return [
        name
        for name, value in texts
        if A_PATH in fields[name].metadata or (name == "mask_values" and _may_be_file(value))
    ]


def _may_be_file(mask_values: str) -> bool:
    """Whether masks' values may be in a csv file. The short form, ``0:background,255:crack``, says them itself."""
    return ":" not in mask_values or "/" in mask_values or "\\" in mask_values
