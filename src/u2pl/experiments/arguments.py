"""Parsers for lists, variants and axes on the command line."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from u2pl.config.schema import LARGEST_SEED
from u2pl.config.strict_yaml import StrictYamlError, load
from u2pl.errors import InputError, quoted

_DIGITS = 100  # of a number that is read at all
_OPENING, _CLOSING, _QUOTES = "[{(", "]})", "'\""


def split_outside_brackets(text: str) -> list[str]:
    """Split at commas outside of brackets and quotes: ``[1,2],3`` -> ``[1,2]`` and ``3``."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in _QUOTES:
            quote = character
        else:
            depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def parse_list(option: str, text: str | None) -> list[str]:
    """``a,b`` -> a and b, without duplicates; empty for None. Raises InputError for an empty item."""
    if text is None:
        return []
    items = split_outside_brackets(text)
    if "" in items:
        raise InputError(f"{option} {quoted(text)}: an item is empty; write them as a,b,c")
    return list(dict.fromkeys(items))


def parse_seeds(text: str | None) -> list[int]:
    """``0,1,2`` -> numbers."""
    items = parse_list("--seeds", text)
    for item in items:
        if not item.isdecimal() or len(item) > _DIGITS or int(item) > LARGEST_SEED:
            raise InputError(
                f"--seeds {quoted(text)}: {quoted(item)} is no seed; write numbers to {LARGEST_SEED}, such as 0,1,2"
            )
    return list(dict.fromkeys(map(int, items)))


def parse_variants(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """``NAME: key=value key=value`` -> overrides by name. Quote values with spaces as in a shell."""
    variants: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, colon, settings = text.partition(":")
        name = name.strip()
        try:
            overrides = tuple(shlex.split(settings))
        except ValueError as error:
            raise InputError(f"--variant {quoted(text)}: {error}; close the quotes") from error
        if not (name and colon and overrides) or "=" in name:
            raise InputError(f'--variant {quoted(text)}: write "NAME: key=value key=value"')
        if name in variants:
            raise InputError(f"--variant {name}: is given twice; name one of them apart")
        variants[name] = overrides
    return variants


def parse_axes(texts: Iterable[str]) -> dict[str, list[str]]:
    """``KEY=VALUE,VALUE`` -> values by key. A list is one value: ``train.scale_range=[0.5,2.0],[1,1]``."""
    axes: dict[str, list[str]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not (key and equals and values):
            raise InputError(
                f"--axis {quoted(text)}: write KEY=VALUE,VALUE, such as method.reliability.alpha=0.1,0.2,0.4"
            )
        if key in axes:
            raise InputError(f"--axis {key}: is given twice; put its values into one")
        axes[key] = parse_list(f"--axis {key}", values)
        for value in axes[key]:
            try:
                load(value)
            except StrictYamlError as error:
                raise InputError(
                    f"--axis {key}: {quoted(value)} is not YAML; quote it or close its brackets"
                ) from error
    return axes
