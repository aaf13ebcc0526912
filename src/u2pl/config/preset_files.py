"""The presets that come with the package, as text. Nothing here knows the schema, so listing them is quick."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from u2pl.config.strict_yaml import load


def preset_names() -> list[str]:
    """The presets that come with the package."""
    return list(preset_texts())


def preset_about(name: str) -> str:
    """The purpose of a preset, in one line."""
    return preset_texts()[name].splitlines()[0].removeprefix("#").strip()


@cache
def preset_texts() -> dict[str, str]:
    """Text of each preset by name. A preset is a file, or a row of a table in the form of a file."""
    folder = resources.files("u2pl.config") / "presets"
    files = {Path(file.name).stem: file for file in folder.iterdir() if file.name.endswith(".yaml")}
    presets = {name: files[name].read_text(encoding="utf-8") for name in sorted(files)}
    for file in (folder / "tables").iterdir():
        for name, row in load(file.read_text(encoding="utf-8")).items():
            presets[name] = f"# {row.pop('about')}\n{yaml.safe_dump(row, sort_keys=False)}"
    return presets
