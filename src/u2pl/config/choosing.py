"""Sections in which a ``name`` chooses what is built: data sets, networks, mixings, weightings and losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from u2pl.config.part import arguments
from u2pl.config.parts import MIXINGS, SUPERVISED_LOSSES, UNSUPERVISED_LOSSES, WEIGHTINGS
from u2pl.data.readers import READERS
from u2pl.networks import NETWORKS

#: Sections whose ``name`` chooses what is built: the choices, and the name where none is set.
CHOICES: dict[str, tuple[Mapping[str, Callable[..., Any]], str]] = {
    "data": (READERS, "scenes"),
    "data.source": (READERS, "folder"),
    "data.target": (READERS, "folder"),
    "network": (NETWORKS, "deeplabv3plus"),
    "method.mixing": (MIXINGS, "cutmix"),
    "method.weighting": (WEIGHTINGS, "lambda_u"),
    "method.supervised_loss": (SUPERVISED_LOSSES, "cross_entropy"),
    "method.unsupervised_loss": (UNSUPERVISED_LOSSES, "cross_entropy"),
}
_EVERY_NETWORK = {"embedding_dim"}  # keys that every network has
_EVERY_DATA = {"cache", "workers", "rare_class_sampling", "mapping"}  # keys that no reader takes
_TWO_DOMAINS = {"source", "target", "upper_bound"}


def without_leftovers(section: str, tree: Mapping[str, Any], name: Any) -> list[str]:
    """The keys of a section's ``tree`` to drop when its ``name`` becomes this one, and was another."""
    parts, default = CHOICES.get(section, ({}, ""))
    if section not in CHOICES or not isinstance(name, str) or tree.get("name", default) == name:
        return []
    if section.startswith("data") and name == "domain":
        known = _TWO_DOMAINS
    elif name in parts:
        known = arguments(parts[name])
    else:
        return []  # the schema refuses such a name
    if section == "network":
        known = (known | _EVERY_NETWORK) - {"output_stride"}  # few architectures have the former one's
    known = known | {"name"} | (_EVERY_DATA if section.startswith("data") else set())
    return [key for key in tree if key not in known]


def users(key: str) -> list[str]:
    """The values of a section's ``name`` that use the key; empty if all do."""
    section, _, name = key.rpartition(".")
    if section not in ("data", "network"):
        return []
    parts, _ = CHOICES[section]
    if name == "name" or name in _EVERY_NETWORK | _EVERY_DATA:
        return []
    if name in _TWO_DOMAINS:
        return ["domain"]
    known = [each for each, part in parts.items() if name in arguments(part)]
    return [] if len(known) == len(parts) else known
