"""Values chosen in place of `auto`, and how they enter a configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from u2pl.config.fields import AUTO
from u2pl.config.schema import Config


@dataclass(frozen=True)
class Choice:
    """Values of related keys, and the reason for them. ``str`` gives one line."""

    values: Mapping[str, Any]  #: by key, such as `train.steps`
    because: str  #: the reason, in at most 60 characters
    used: bool = True  #: whether the method uses the keys
    detail: str = ""  #: further reasons, and consequences for this run
    warning: str = ""  #: what the user should know and may change, one line
    to_measure: bool = False  #: whether the values stand in for those that a measurement before the training decides

    def __str__(self) -> str:
        values = ", ".join(f"{key} {value_text(value)}" for key, value in self.values.items())
        return f"auto: {values}: {self.because}" + (f"; {self.detail}" if self.detail else "")


def take(config: Config, choice: Choice) -> tuple[Config, Choice]:
    """``config`` with the values of a choice for keys that are `auto`, and a choice of only these values."""
    values = {key: value for key, value in choice.values.items() if config.value(key) == AUTO}
    return config.with_values(values), replace(choice, values=values)


def like(config: Config, model: Config, keys: Iterable[str]) -> Config:
    """``config`` with the values of ``model`` for those of the keys that are `auto`."""
    return config.with_values({key: model.value(key) for key in set(keys).intersection(config.auto_keys())})


def value_text(value: Any) -> str:
    """A value in the form of the command line."""
    return value if isinstance(value, str) else json.dumps(value)
