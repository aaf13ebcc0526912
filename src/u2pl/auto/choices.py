"""Values chosen in place of `auto`, and how they get into a configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from u2pl.config.fields import AUTO
from u2pl.config.schema import Config


@dataclass(frozen=True)
class Choice:
    """Values of keys of one section that belong together, and why. As text it is one line."""

    section: str
    values: Mapping[str, Any]
    reason: str
    used: bool = True  #: by the method
    detail: str = ""  #: what follows for this run alone

    @property
    def keys(self) -> set[str]:
        """As `train.steps`."""
        return {f"{self.section}.{key}" for key in self.values}

    def __str__(self) -> str:
        values = ", ".join(f"{key} {_text(value)}" for key, value in self.values.items())
        return f"auto: {self.section}.{values}: {self.reason}" + (f"; {self.detail}" if self.detail else "")


def take(config: Config, choice: Choice) -> tuple[Config, Choice]:
    """``config`` with those of the values whose keys are `auto`, and the choice of these alone."""
    section = getattr(config, choice.section)
    values = {key: value for key, value in choice.values.items() if getattr(section, key) == AUTO}
    config = config.model_copy(update={choice.section: section.model_copy(update=values)})
    return config, replace(choice, values=values)


def like(config: Config, model: Config, keys: Iterable[str]) -> Config:
    """``config`` with the values of ``model`` for those of the keys that are `auto`."""
    for key in set(keys).intersection(config.auto_keys()):
        section, name = key.split(".")
        value = getattr(getattr(model, section), name)
        config, _ = take(config, Choice(section, {name: value}, ""))
    return config


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
