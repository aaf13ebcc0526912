"""Presets and YAML files -> the keys that they set, with the keys of their bases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from u2pl.config.choosing import without_leftovers
from u2pl.config.preset_files import preset_about, preset_names, preset_texts
from u2pl.config.schema import Config, section_in
from u2pl.config.strict_yaml import StrictYamlError, load
from u2pl.config.words import nearest
from u2pl.errors import InputError, quoted
from u2pl.paths import is_file, is_folder, read_text

_YAML = (".yaml", ".yml")
_LARGEST = 2**18  # bytes of a file: a whole configuration with 255 long names of classes has less


def preset_text(name: str) -> str:
    """YAML of a preset with everything that it and its bases set. The first line is a comment on its purpose."""
    text = preset_texts()[name]
    if "base" not in load(text):
        return text
    return f"# {preset_about(name)}\n{yaml.safe_dump(read(name), sort_keys=False)}"


def read(source: str | Path, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The sections that a preset or file sets, on top of its ``base``. ``above``: the chain that led to this base."""
    text, where = _text(source, above)
    try:
        tree = load(text)
    except StrictYamlError as error:
        raise InputError(f"{where} is not YAML: {error}") from error
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise InputError(f"{where} must hold sections such as `data:` and `train:`, not {type(tree).__name__}")
    tree = _without_empty(tree, Config)
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise InputError(f"{where}: base: should be a preset's name or a YAML file, not {quoted(base)}")
    if where in above:
        circle = " -> ".join((*above[above.index(where) :], where))
        raise InputError(f"{where}: base: leads back to itself ({circle}); take one of these bases out")
    if base.endswith(_YAML):
        base = os.path.normpath(Path(source).parent / base)
    return _merged(read(base, (*above, where)), tree)


def _without_empty(tree: dict[str, Any], section: type[BaseModel]) -> dict[str, Any]:
    """The keys of a file without empty sections, such as one whose lines are all comments: they set nothing.

    A part that may be left out stays: there, nothing means off.
    """
    kept = {}
    for name, value in tree.items():
        field = section.model_fields.get(name)
        inner = None if field is None else section_in(field.annotation)
        if value is None and inner is not None and field is not None and field.annotation is inner:
            continue
        kept[name] = _without_empty(value, inner) if inner is not None and isinstance(value, dict) else value
    return kept


def _text(source: str | Path, above: tuple[str, ...]) -> tuple[str, str]:
    """Text of a preset or file, and its name in an error."""
    path, of = Path(source), f"{above[-1]}: base: " if above else ""
    if path.suffix in _YAML or (is_file(path) and not above):
        try:
            return read_text(path, give="give a YAML file or a preset's name", largest=_LARGEST), str(path)
        except InputError as error:
            raise InputError(f"{of}{error}") from error
    if str(source) in preset_texts():
        return preset_texts()[str(source)], f"preset {source}"
    if is_folder(path) and not above:
        raise InputError(
            f"{path} is a folder, not a configuration; for its images: `u2pl check folder data.root={path}`"
        )
    near = nearest(str(source), preset_names())
    raise InputError(f"{of}no preset {quoted(str(source))}{near}; `u2pl presets` lists them")


def _merged(base: dict[str, Any], tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Merge two trees of sections. If both set a key, the value of ``tree`` wins."""
    both = dict(base)
    for section, values in tree.items():
        below = base.get(section)
        if not (isinstance(below, dict) and isinstance(values, dict)):
            both[section] = below if values is True and isinstance(below, dict) else values
            continue
        where = f"{path}{section}"
        if "name" in values:
            leftovers = without_leftovers(where, below, values["name"])
            below = {key: value for key, value in below.items() if key not in leftovers}
        both[section] = _merged(below, values, f"{where}.")
        if section == "train" and "steps" in values and "epochs" not in values:
            both[section].pop("epochs", None)  # the length set last counts
    return both
