"""Presets, YAML files and ``key=value`` overrides -> a configuration. A typo is an error that names the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from u2pl.config.choosing import without_leftovers
from u2pl.config.former import refuse_former, upgraded
from u2pl.config.reading import read
from u2pl.config.schema import Config, all_keys, section_in
from u2pl.config.strict_yaml import StrictYamlError, load
from u2pl.config.words import nearest
from u2pl.errors import InputError, quoted


def load_config(source: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Load a preset by name, a YAML file, or None for the defaults, with ``section.key=value`` overrides.

    An override that chooses another part, such as ``data.name=pascal_voc``, applies first. Keys of the preset or file
    for the former part are dropped if the new part does not have them.

    Raises InputError, one line that names the key, for anything that does not fit the schema.
    """
    return _checked({} if source is None else read(source), overrides)


def load_saved(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration saved with a run, also by an earlier version. Raises InputError like :func:`load_config`."""
    return _checked(upgraded(read(path)), overrides)


def _checked(tree: dict[str, Any], overrides: Sequence[str]) -> Config:
    refuse_former(tree)
    keys = [_split(override) for override in overrides]
    for key, text in sorted(keys, key=lambda each: not each[0].endswith(".name")):
        _set(tree, key, text)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise InputError(_explain(error)) from error


def _split(override: str) -> tuple[str, str]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"{quoted(override)} is not a setting; write key=value, such as train.steps=1000")
    return key, text


def _set(tree: dict[str, Any], key: str, text: str) -> None:
    value = _value(key, text)
    refuse_former(_nested(key, value))
    *sections, leaf = key.split(".")
    for depth, section in enumerate(sections):
        if (tree.get(section) is None or isinstance(tree[section], bool)) and _is_section(sections[: depth + 1]):
            tree[section] = {}  # a key of an optional part turns it on
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise InputError(f"{key}: {section} is a value, not a section")
    if leaf == "name":
        for name in without_leftovers(".".join(sections), tree, value):
            del tree[name]
    if value is True and isinstance(tree.get(leaf), dict):
        return  # the part is on already
    tree[leaf] = value
    if key == "train.steps":
        tree.pop("epochs", None)  # the length set last counts


def _value(key: str, text: str) -> Any:
    """The value of an override, read as YAML.

    If a key accepts text and the YAML value has a type that it does not accept, the value is the text itself. An
    example is a folder named 2012.
    """
    if text.startswith("#"):
        return text  # a colour, not a comment
    try:
        value = load(text)
    except StrictYamlError:
        return text
    field = _field(key.split("."))
    if field is None:
        return value
    kinds = get_args(field.annotation) or (field.annotation,)
    return text if str in kinds and type(value) not in (*kinds, type(None)) else value


def _field(path: Sequence[str]) -> FieldInfo | None:
    """The field of a key; None if the schema does not have it."""
    fields: Mapping[str, FieldInfo] = Config.model_fields
    *sections, leaf = path
    for section in sections:
        inner = section_in(getattr(fields.get(section), "annotation", None))
        fields = {} if inner is None else inner.model_fields
    return fields.get(leaf)


def _is_section(path: Sequence[str]) -> bool:
    field = _field(path)
    return field is None or section_in(field.annotation) is not None


def _nested(key: str, value: Any) -> dict[str, Any]:
    """``{"train": {"steps": 1000}}`` from `train.steps` and its value."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def _elsewhere(key: Sequence[str]) -> str:
    """Where a key without its section belongs: `root` -> `data.root`."""
    whole = [name for name, _ in all_keys() if len(key) == 1 and name.endswith(f".{key[0]}")]
    return f" (did you mean {' or '.join(whole[:3])}?)" if whole else ""


def _explain(error: ValidationError) -> str:
    errors = error.errors()
    same_key = [each for each in errors if each["loc"][:2] == errors[0]["loc"][:2]]
    # Of the branches of a union, the one that read the most, if possible one that accepts this type of value.
    first = max(same_key, key=lambda each: (len(each["loc"]), not each["type"].endswith("_type")))
    # A union reports one error per branch. The branch's name follows the key and does not belong to it.
    fields: Mapping[str, FieldInfo] = Config.model_fields
    key: list[str] = []
    inner = None
    for part in map(str, first["loc"]):
        key.append(part)
        inner = section_in(getattr(fields.get(part), "annotation", None))
        if inner is None:
            break
        fields = inner.model_fields
    name = ".".join(key)
    if first["type"] in ("extra_forbidden", "invalid_key"):
        return f"unknown key {name}{_elsewhere(key) or nearest(key[-1], list(fields))}"
    if inner is not None:
        return (
            f"{name}: should be a section with keys such as {name}.{next(iter(fields))}, not {quoted(first['input'])}"
        )
    if first["type"].endswith("parsing_size"):
        return f"{name}: should be a smaller number, not {quoted(first['input'])}"
    _, should, reason = first["msg"].partition(" should ")  # "Input should be ...", "List should have ..."
    reason = reason.partition(" after validation")[0] if should else "be " + first["msg"].removeprefix("Value error, ")
    switch = any(each["type"].startswith("bool_") for each in same_key if each is not first)
    return f"{name}: should {reason}{', or true or false' if switch else ''}, not {quoted(first['input'])}"
