"""Presets, YAML files and ``key=value`` overrides -> a configuration. A typo is an error that names the key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from u2pl.config.schema import Config
from u2pl.errors import InputError

_YAML = (".yaml", ".yml")
#: A section without a key, as in a file whose lines below it are comments, sets nothing.
_SECTIONS = [name for name, value in Config() if isinstance(value, BaseModel)]


def preset_names() -> list[str]:
    """The presets that come with the package."""
    return list(_presets())


def preset_about(name: str) -> str:
    """One line on what a preset is for."""
    return _presets()[name].splitlines()[0].removeprefix("#").strip()


def preset_text(name: str) -> str:
    """YAML of a preset: all it sets beyond the defaults, that of its bases with it. Its first line is a comment that
    says what it is for."""
    text = _presets()[name]
    if "base" not in yaml.safe_load(text):
        return text
    return f"# {preset_about(name)}\n{yaml.safe_dump(_read(name), sort_keys=False)}"


@cache
def _presets() -> dict[str, str]:
    """Text of each preset by name: a file each, and the rows of the tables, as if each were a file."""
    folder = resources.files("u2pl.config") / "presets"
    files = {Path(file.name).stem: file for file in folder.iterdir() if file.name.endswith(".yaml")}
    presets = {name: files[name].read_text(encoding="utf-8") for name in sorted(files)}
    for file in (folder / "tables").iterdir():
        for name, row in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            presets[name] = f"# {row.pop('about')}\n{yaml.safe_dump(row, sort_keys=False)}"
    return presets


def load_config(source: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """A preset by name, a YAML file, or None for the defaults, with ``section.key=value`` overrides.

    Raises InputError, one line that names the key, for whatever does not fit the schema.
    """
    tree = {} if source is None else _read(source)
    for override in overrides:
        _set(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise InputError(_explain(error)) from error


def _read(source: str | Path, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The sections that a preset or file sets, on top of those of its ``base``. ``above``: what has it for a base."""
    text, where = _text(source, above)
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{where} must hold sections such as `data:` and `train:`, not {type(tree).__name__}")
    tree = {name: value for name, value in tree.items() if value is not None or name not in _SECTIONS}
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise InputError(f"{where}: base: should be a preset's name or a YAML file, not {base!r}")
    if where in above:
        circle = " -> ".join((*above[above.index(where) :], where))
        raise InputError(f"{where}: base: leads back to itself ({circle}); take one of these bases out")
    if base.endswith(_YAML):
        base = os.path.normpath(Path(source).parent / base)
    return _merged(_read(base, (*above, where)), tree)


def _text(source: str | Path, above: tuple[str, ...]) -> tuple[str, str]:
    """Text of a preset or file, and what to call it in an error."""
    path, of = Path(source), f"{above[-1]}: base: " if above else ""
    if path.suffix in _YAML or (path.is_file() and not above):
        try:
            return path.read_text(), str(path)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "no text in UTF-8"
            raise InputError(f"{of}{path} cannot be read ({why}); give a YAML file or a preset's name") from error
    if str(source) in _presets():
        return _presets()[str(source)], f"preset {source}"
    near = _nearest(str(source), preset_names())
    raise InputError(f"{of}no preset {str(source)!r}{near}; `u2pl presets` lists them")


def _merged(base: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """The sections of both, those within sections too; where both set a key, that of ``tree``."""
    both = dict(base)
    for section, values in tree.items():
        below = base.get(section)
        if not (isinstance(below, dict) and isinstance(values, dict)):
            both[section] = values
            continue
        both[section] = _merged(below, values)
        if section == "train" and "steps" in values and "epochs" not in values:
            both[section].pop("epochs", None)  # the length set last counts
    return both


def _set(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r} is no override; write key=value, such as train.steps=1000")
    *sections, leaf = key.split(".")
    for section in sections:
        if tree.get(section) is None:  # data.source is null until a key of it is set
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise InputError(f"{key}: {section} is a value, not a section")
    tree[leaf] = _value(key, text)
    if key == "train.steps":
        tree.pop("epochs", None)  # the length set last counts


def _value(key: str, text: str) -> Any:
    """The value of an override: YAML, but for a key that holds text what is none of its kinds is the text itself, such
    as a folder named 2012."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    *sections, leaf = key.split(".")
    fields = Config.model_fields
    for section in sections:
        fields = _section_fields(fields.get(section))
    field = fields.get(leaf)
    if field is None:
        return value
    kinds = get_args(field.annotation) or (field.annotation,)
    return text if str in kinds and type(value) not in (*kinds, type(None)) else value


def _section_fields(field: FieldInfo | None) -> dict[str, FieldInfo]:
    """The fields of a section within a section, by name; none for a value."""
    annotation = getattr(field, "annotation", None)
    for kind in (annotation, *get_args(annotation)):  # a section may be optional
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind.model_fields
    return {}


def _explain(error: ValidationError) -> str:
    errors = error.errors()
    same_key = [each for each in errors if each["loc"][:2] == errors[0]["loc"][:2]]
    # The branch of a union that came furthest; best one that takes such a value at all.
    first = max(same_key, key=lambda each: (len(each["loc"]), not each["type"].endswith("_type")))
    # A union reports one error per branch; the branch's name follows the key and is no part of it.
    fields = Config.model_fields
    key: list[str] = []
    for part in map(str, first["loc"]):
        key.append(part)
        nested = _section_fields(fields.get(part))
        if not nested:
            break
        fields = nested
    name = ".".join(key)
    if first["type"] in ("extra_forbidden", "invalid_key"):
        return f"unknown key {name}{_nearest(key[-1], list(fields))}"
    _, should, reason = first["msg"].partition(" should ")  # "Input should be ...", "List should have ..."
    reason = reason.partition(" after validation")[0] if should else "be " + first["msg"].removeprefix("Value error, ")
    return f"{name}: should {reason}, not {first['input']!r}"


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(known)})"
