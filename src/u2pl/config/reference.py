"""All keys with their defaults and meanings, from the schema, for the terminal and the documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from u2pl.config.choosing import users
from u2pl.config.fields import AUTO, Section
from u2pl.config.schema import SourceConfig, all_keys, may_be_auto, section_in
from u2pl.config.words import nearest
from u2pl.errors import InputError, quoted

#: Keys that most runs set. All others are for research.
EVERYDAY = frozenset(
    {
        *(f"data.{key}" for key in ("name", "root", "labeled", "val", "classes", "scale", "tags", "source", "target")),
        *(f"network.{key}" for key in ("encoder", "architecture", "pretrained", "weights", "mean", "std")),
        *("method.name", "method.mixing.name", "method.image_prior.sharpness", "method.diagnose"),
        *(f"train.{key}" for key in ("steps", "batch_size", "crop_size", "lr", "precision", "devices", "eval_every")),
        *("evaluation.protocol", "evaluation.flip", "seed"),
    }
)
_INTRODUCTION = """\
# All keys

`u2pl keys` prints this page, `u2pl keys method.contrast` one section of it. Set a key on the command line as
`train.steps=2000`, or in a YAML file. **Bold** keys are the everyday ones. The others are for research: leave them
alone until you have a reason.

`null` leaves a choice to the part that uses the key. `auto` is allowed where the table says so: u2pl then chooses by
your images, their labels and your machine ([how](../explanation/auto.md)). A part of the method that is off by default
is `null`; `true` turns it on with the defaults below it.
"""


@dataclass(frozen=True)
class Key:
    """One line of the reference."""

    name: str  #: as `train.steps`
    default: str  #: in the form of the command line
    meaning: str
    everyday: bool
    auto: bool  #: whether it may be `auto`


def keys(section: str | None = None) -> list[Key]:
    """All keys, or those of a section such as `method.contrast`. Raises InputError if there is no such section."""
    auto = set(may_be_auto())
    found = [
        Key(name, _default(field), meaning(field) + _for(name), everyday=name in EVERYDAY, auto=name in auto)
        for name, field in [*all_keys(), ("data.source.mapping", SourceConfig.model_fields["mapping"])]
    ]
    if section is None:
        return found
    chosen = [key for key in found if key.name == section or key.name.startswith(f"{section}.")]
    if not chosen:
        names = {key.name.rpartition(".")[0] for key in found} | {key.name for key in found}
        near = nearest(section, sorted(names - {""})) if get_close_matches(section, names, n=1) else ""
        near = near or f" (sections: {', '.join(dict.fromkeys(key.name.partition('.')[0] for key in found))})"
        raise InputError(f"there is no section or key {quoted(section)}{near}")
    return chosen


def _default(field: Any) -> str:
    """A default in the form of the command line."""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Section):
        return "true"
    return value if isinstance(value, str) else json.dumps(value)


def meaning(field: Any) -> str:
    """What a key means, in one line."""
    return " ".join((field.description or "").replace("``", "`").split()).rstrip(".")


def _for(name: str) -> str:
    known = users(name)
    return f" ({', '.join(known)})" if known else ""


def markdown() -> str:
    """The reference page of all keys."""
    lines = [_INTRODUCTION]
    for section, group in _sections():
        lines += [f"## {section}\n", "| key | default | meaning |", "|---|---|---|"]
        for key in group:
            name = f"**`{key.name}`**" if key.everyday else f"`{key.name}`"
            default = f"`{key.default}`" + (f" or `{AUTO}`" if key.auto else "")
            lines.append(f"| {name} | {default} | {key.meaning.replace('|', chr(92) + '|')} |")
        lines.append("")
    return "\n".join(lines)


def _sections() -> Iterator[tuple[str, list[Key]]]:
    """Sections of the schema in order, each with its keys. The section of an optional part begins with its own key."""
    parts = {name for name, field in all_keys() if name.startswith("method.") and section_in(field.annotation)}
    groups: dict[str, list[Key]] = {}
    for key in keys():
        section = key.name if key.name in parts else key.name.rpartition(".")[0]
        groups.setdefault(section or key.name, []).append(key)
    yield from groups.items()
