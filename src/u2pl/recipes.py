"""Presets, YAML files and ``key=value`` overrides -> a configuration. A typo is an error that names the key."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from u2pl.config import Config
from u2pl.errors import InputError


def preset_names() -> list[str]:
    """The presets that come with the package."""
    folder = resources.files("u2pl") / "presets"
    return sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """YAML of a preset: what it sets beyond the defaults. Its first comment line says what it is for."""
    return (resources.files("u2pl") / "presets" / f"{name}.yaml").read_text()


def load_config(source: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """A preset by name, or a YAML file, or None for the defaults, with ``section.key=value`` overrides.

    Raises InputError, one line that names the key, for whatever does not fit the schema.
    """
    tree = {} if source is None else _read(source)
    for override in overrides:
        _set(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise InputError(_explain(error)) from error


def _read(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            text, where = path.read_text(), str(path)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "no text in UTF-8"
            raise InputError(f"{path} cannot be read ({why}); give a YAML file or a preset's name") from error
    elif str(source) in preset_names():
        text, where = preset_text(str(source)), f"preset {source}"
    else:
        raise InputError(f"no preset {str(source)!r}{_nearest(str(source), preset_names())}; `u2pl presets` lists them")
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{where} must hold sections such as `data:` and `train:`, not {type(tree).__name__}")
    return tree


def _set(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r} is no override; write key=value, such as train.steps=1000")
    *sections, leaf = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise InputError(f"{key}: {section} is a value, not a section")
    try:
        tree[leaf] = yaml.safe_load(text)
    except yaml.YAMLError:
        tree[leaf] = text


def _explain(error: ValidationError) -> str:
    errors = error.errors()
    same_key = [each for each in errors if each["loc"][:2] == errors[0]["loc"][:2]]
    first = max(same_key, key=lambda each: len(each["loc"]))  # the branch of a union that came furthest
    # A union reports one error per branch; the branch's name follows the key and is no part of it.
    path = [str(part) for part in first["loc"]]
    fields: Any = Config.model_fields
    key: list[str] = []
    for part in path:
        if key and not isinstance(fields, dict):
            break
        key.append(part)
        info = fields.get(part)
        nested = getattr(info, "annotation", None)
        if info is None or not (isinstance(nested, type) and issubclass(nested, BaseModel)):
            break
        fields = nested.model_fields
    name = ".".join(key)
    if first["type"] in ("extra_forbidden", "invalid_key"):
        return f"unknown key {name}{_nearest(key[-1], list(fields))}"
    reason = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{name}: should be {reason}, not {first['input']!r}"


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(known)})"
