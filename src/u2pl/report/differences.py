"""Which settings differ between runs that are compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from u2pl.auto.choices import value_text
from u2pl.auto.resolving import LOADING
from u2pl.config.data import DataKeys
from u2pl.config.fields import Section
from u2pl.config.portable import keys_with_paths
from u2pl.config.schema import Config, SourceConfig, TargetConfig, all_keys
from u2pl.config.uses import HELP, uses

#: Keys that may differ between a method and labels alone: where images lie and which ones there are (their names are
#: compared), what only other methods use, and what no weight depends on.
_MAY_DIFFER = (
    *LOADING,
    *("seed", "method.name", "data.tags", "network.embedding_dim", "evaluation.tags", "evaluation.image_prior"),
    *(f"{part}.{key}" for part in ("data", "data.source", "data.target") for key in ("root", "labeled", "unlabeled")),
    *(f"{part}.{key}" for part in ("data", "data.source", "data.target") for key in ("val", "groups")),
    *(f"train.{key}" for key in ("epochs", "eval_every", "save_every", "log_every")),
    *(f"train.{key}" for key in ("accelerator", "compile", "channels_last")),
)
_SHOWN = 4


def differing(configs: Sequence[Config], keys: Iterable[str]) -> dict[str, list[str | None]]:
    """The values of each key that differs between configurations that use it; None for one that does not use it.

    A key that helps some methods only also differs if one of them sets it.
    """
    rows = {}
    for key in keys:
        values = [text_of(config, key) if uses(key, config.method) else None for config in configs]
        used = [value for value in values if value is not None]
        lacking = key in HELP and None in values  # what helps some only
        if any(value != used[0] or (lacking and value != text_of(Config(), key)) for value in used):
            rows[key] = values
    return rows


def unlike(one: Config, other: Config) -> dict[str, tuple[str, str]]:
    """The values of each key that differs between two runs, and is not a method's own."""
    domains: dict[str, type[DataKeys]] = {"data.source": SourceConfig, "data.target": TargetConfig}
    keys = [key for key, _ in all_keys()]
    keys += [f"{part}.{name}" for part, section in domains.items() for name in section.model_fields]
    found = differing([one, other], (key for key in keys if key not in _MAY_DIFFER))
    return {key: (first, second) for key, (first, second) in found.items() if first is not None and second is not None}


def told_unlike(one: Config, other: Config) -> str:
    """What :func:`unlike` finds, in words: the values of the other run, with those of this one; files without paths."""
    paths = {*keys_with_paths(one), *keys_with_paths(other)}
    said = []
    for key, values in unlike(one, other).items():
        here, there = (PurePath(value).name if key in paths else value for value in values)
        said.append(f"{key}={there} (here {here})")
    more = f" and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
    return ", ".join(said[:_SHOWN]) + more


def text_of(config: Config, key: str) -> str:
    """The value of a key in the form of the command line; `true` for a part that is not left out."""
    value = config.value(key)
    return value_text(True if isinstance(value, Section) else value)
