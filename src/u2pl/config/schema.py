"""The schema of a run. :mod:`u2pl.config.overrides` fills it from presets, YAML files and overrides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel, Field

from u2pl.config.data import DataConfig, DataKeys, SourceConfig, TargetConfig
from u2pl.config.fields import AUTO, MAY_BE_AUTO, Section
from u2pl.config.method import MethodConfig
from u2pl.config.network import NetworkConfig
from u2pl.config.train import EvaluationConfig, TrainConfig

__all__ = [
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "MethodConfig",
    "NetworkConfig",
    "SourceConfig",
    "TargetConfig",
    "TrainConfig",
    "all_keys",
    "may_be_auto",
    "section_in",
]

LARGEST_SEED = 2**63 - 1


class Config(Section):
    """The configuration of a whole run."""

    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    """seed of the choice of labels, the initial weights and every random draw"""

    def to_yaml(self) -> str:
        """YAML with every key and its value."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)

    def value(self, key: str) -> Any:
        """The value of a key such as `method.reliability.alpha`; None for a part that is left out."""
        found: Any = self
        for name in key.split("."):
            found = None if found is None else getattr(found, name)
        return found

    def with_values(self, values: dict[str, Any]) -> Config:
        """A copy with new values for some keys. They are not checked."""
        copy: Any = self
        for key, value in values.items():
            copy = _replaced(copy, key.split("."), value)
        return copy

    def auto_keys(self) -> list[str]:
        """The keys that are still `auto`, such as `train.steps`."""
        return [key for key in may_be_auto() if self.value(key) == AUTO]


def may_be_auto() -> list[str]:
    """The keys that may be `auto` until the data and the machine are known, in the order of the schema."""
    return [key for key, field in all_keys() if any(marker is MAY_BE_AUTO for marker in field.metadata)]


def all_keys(section: type[BaseModel] = Config, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every key, such as `train.steps`, with its field, in the order of the schema. A part comes before its keys."""
    for name, field in section.model_fields.items():
        inner = section_in(field.annotation)
        if inner is None or type(None) in _options(field.annotation):
            yield above + name, field
        if (inner is not None and not issubclass(inner, DataKeys)) or inner is DataConfig:
            yield from all_keys(inner, f"{above}{name}.")


def section_in(annotation: Any) -> type[Section] | None:
    """The section in the annotation of a field, optional or not; None for a value."""
    kinds = (kind for kind in _options(annotation) if isinstance(kind, type) and issubclass(kind, Section))
    return next(kinds, None)


def _options(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *getattr(annotation, "__args__", ()))


def _replaced(section: Any, path: list[str], value: Any) -> Any:
    name, *below = path
    inner = getattr(section, name)
    if below and inner is None:
        return section
    return section.model_copy(update={name: _replaced(inner, below, value) if below else value})
