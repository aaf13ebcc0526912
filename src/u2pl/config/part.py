"""A part of the method -> the section of the configuration that builds it.

A section's keys are the keyword arguments of the part's constructor. Their names, defaults, checks and meanings are
written once, in the part. So building is ``Part(**section)``.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field, PlainSerializer, create_model

from u2pl.config.fields import MAY_BE_AUTO, DerivedSection, Section
from u2pl.errors import InputError

_PLAIN = (bool, int, float, str, type(None))


def section_of(
    part: Callable[..., Any],
    *,
    auto: Collection[str] = (),
    leave_out: Collection[str] = (),
    nested: Mapping[str, type[Section]] | None = None,
) -> Any:
    """The section whose keys are the keyword arguments of ``part`` that a file can hold.

    Args:
        auto: keys that may be `auto`.
        leave_out: arguments that do not become keys, though a file could hold them.
        nested: sections for arguments that are parts themselves.
    """
    keys = _keys(part, leave_out=leave_out)
    fields: dict[str, Any] = {}
    for name, (kind, default, meaning) in keys.items():
        whole = Annotated[kind, MAY_BE_AUTO, PlainSerializer(lambda value: value)] if name in auto else kind
        fields[name] = (whole, Field(default, description=meaning))
    for name, inner in (nested or {}).items():
        fields[name] = (inner, Field(inner(), description=meanings(part)[name]))
    return create_model(f"{_title(part)}Section", __base__=DerivedSection, __doc__=_summary(part), **fields)


def choice_of(parts: Mapping[str, Callable[..., Any]], default: str, *, meaning: str, auto: bool = False) -> Any:
    """The section of a part that is chosen by ``name``, with the keys of all parts to choose from.

    A key that is not set gets the default of the chosen part. :func:`build_choice` refuses a key that this part does
    not have.
    """
    names: Any = Literal[tuple(parts)]
    name = Annotated[names, MAY_BE_AUTO, PlainSerializer(lambda value: value)] if auto else names
    kinds: dict[str, Any] = {}
    users: dict[str, dict[str, list[str]]] = {}  # key -> meaning -> the parts that have it
    for chosen, part in parts.items():
        for key, (kind, own, about) in _keys(part).items():
            kinds[key] = kind | None
            whole = about + ("" if own is None else f"; null: {json.dumps(own)}")
            users.setdefault(key, {}).setdefault(whole, []).append(chosen)
    fields: dict[str, Any] = {"name": (name, Field(default, description=f"{meaning}: {', '.join(parts)}"))}
    for key, kind in kinds.items():
        about = ". ".join(f"{', '.join(names)}: {whole}" for whole, names in users[key].items())
        fields[key] = (kind, Field(None, description=about))
    return create_model("ChoiceSection", __base__=DerivedSection, **fields)


def build_choice(
    section: Any, parts: Mapping[str, Callable[..., Any]], key: str, injected: Mapping[str, Any] | None = None
) -> Any:
    """Build the part that ``section`` names, from its keys and those ``injected`` arguments that the part has.

    Raises InputError for a key that is set and that the part does not have. ``key`` is the name of the section.
    """
    values = {name: value for name, value in section if value is not None and name != "name"}
    part = parts[section.name]
    options = accepted(part, values, f"{key}.name={section.name}", key)
    known = inspect.signature(part).parameters
    given = {name: value for name, value in (injected or {}).items() if name in known}
    return part(**options, **given) if inspect.isclass(part) else part


def accepted(builder: Callable[..., Any], options: dict[str, Any], chosen: str, section: str) -> dict[str, Any]:
    """``options`` unchanged. Raises InputError for a key that is not an argument of ``builder``."""
    known = arguments(builder)
    for key in options:
        if key not in known:
            raise InputError(f"{section}.{key}: is not used with {chosen}; leave it out")
    return options


def arguments(builder: Callable[..., Any]) -> set[str]:
    """The names of the arguments of a builder."""
    return set(inspect.signature(builder).parameters)


def meanings(part: Callable[..., Any]) -> dict[str, str]:
    """The description of each argument under ``Args:`` in a part's docstring, in one line without a final period."""
    text = inspect.getdoc(part) or ""
    _, found, after = text.partition("\nArgs:\n")
    if not found:
        return {}
    about: dict[str, str] = {}
    names: list[str] = []
    for line in after.splitlines():
        if line.strip() and not line.startswith(" "):
            break  # the next heading
        start = re.match(r" {4}(\w+(?:, \w+)*): (.*)", line)
        if start is not None:
            names = start[1].split(", ")
            about |= dict.fromkeys(names, start[2].strip())
        elif line.strip():
            about |= {name: f"{about[name]} {line.strip()}" for name in names}
    return {name: re.sub(r":\w+:`[~.]*([^`]*)`", r"\1", text).rstrip(".") for name, text in about.items()}


def _keys(part: Callable[..., Any], leave_out: Collection[str] = ()) -> dict[str, tuple[Any, Any, str]]:
    """Type, default and meaning of each argument that has a default and a type that a file can hold."""
    hints = get_type_hints(part.__init__ if inspect.isclass(part) else part, include_extras=True)
    about = meanings(part)
    return {
        name: (_as_list(hints[name]), _default(parameter.default), about.get(name, ""))
        for name, parameter in inspect.signature(part).parameters.items()
        if parameter.default is not parameter.empty and name not in leave_out and _is_plain(hints[name])
    }


def _is_plain(kind: Any) -> bool:
    """Whether a file can hold a value of this type."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _is_plain(get_args(kind)[0])
    if origin is Literal:
        return True
    if origin in (Union, types.UnionType, list, Sequence):
        return all(_is_plain(each) for each in get_args(kind))
    return kind in _PLAIN


def _as_list(kind: Any) -> Any:
    """The type of an argument in a file, where a sequence is a list."""
    if get_origin(kind) is not Sequence:
        return kind
    return Annotated[list[get_args(kind)[0]], Field(min_length=1, max_length=32)]  # type: ignore[misc]


def _default(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _title(part: Callable[..., Any]) -> str:
    return "".join(word[:1].upper() + word[1:] for word in part.__name__.split("_"))


def _summary(part: Callable[..., Any]) -> str:
    return (inspect.getdoc(part) or "").split("\n\n")[0].replace("\n", " ")
