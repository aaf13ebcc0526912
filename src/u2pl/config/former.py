"""Keys that have moved, and keys that a newly chosen part does not have."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from u2pl.config.part import arguments
from u2pl.config.parts import MIXINGS, SUPERVISED_LOSSES, UNSUPERVISED_LOSSES, WEIGHTINGS
from u2pl.data.readers import READERS
from u2pl.errors import InputError
from u2pl.networks import NETWORKS

#: Former key -> current key.
FORMER = {
    "data.rare_class_temperature": "data.rare_class_sampling.temperature",
    "method.loss": "method.supervised_loss.name",
    "method.unsupervised_loss": "method.unsupervised_loss.name",
    "method.ohem_threshold": "method.supervised_loss.threshold",
    "method.ohem_min_kept": "method.supervised_loss.min_kept",
    "method.symmetric": "method.unsupervised_loss.reverse_weight",
    "method.warmup": "method.schedule.warmup",
    "method.ramp": "method.schedule.ramp",
    "method.mixing": "method.mixing.name",
    "method.strong_view": "method.strong_views.jitter",
    "method.jitter": "method.strong_views.jitter",
    "method.views": "method.strong_views.number",
    "method.alpha": "method.reliability.alpha",
    "method.dynamic_partition": "method.reliability.dynamic",
    "method.class_wise": "method.reliability.class_wise",
    "method.min_confidence": "method.reliability.min_confidence",
    "method.unsupervised_weighting": "method.weighting.name",
    "method.max_lambda_u": "method.weighting.maximum",
    "method.align": "method.alignment",
    "method.image_prior": "method.image_prior.sharpness",
    "method.denoise": "method.denoising",
    "method.denoise_temperature": "method.denoising.temperature",
    "method.ema_decay": "method.teacher.ema_decay",
    "method.teacher_passes": "method.teacher.passes",
    **{
        f"method.{name}_weight": f"method.loss_weights.{name}"
        for name in ("unsupervised", "contrastive", "negative", "auxiliary", "classification")
    },
    "method.negatives_from": "method.negative_keys.pixels",
    **{f"method.{name}": f"method.negative_keys.{name}" for name in ("rank_threshold", "low_rank", "high_rank")},
    "method.tag_negatives": "method.negative_keys.tags",
    **{
        f"method.{name}": f"method.contrast.{name}"
        for name in (
            *("min_probability", "anchors", "negatives", "temperature"),
            *("bank_size", "background_bank_size", "keys_per_step"),
        )
    },
    **{f"method.cam_{name}": f"method.cam.{name}" for name in ("warmup", "scales", "flip", "stride", "high", "low")},
    "method.pamr_iterations": "method.cam.refinement.iterations",
    "method.pamr_dilations": "method.cam.refinement.dilations",
    "method.seed_share": "method.cam.share",
}
_HOW = {
    "method.symmetric": "; set method.unsupervised_loss.name=symmetric with it",
    "method.strong_view": ": unlabeled, mixed or none",
}
#: Sections whose ``name`` chooses a part, with the parts and the keys that all of them have.
_CHOICES: dict[str, tuple[Mapping[str, Callable[..., Any]], frozenset[str]]] = {
    **dict.fromkeys(("data", "data.source", "data.target"), (READERS, frozenset())),
    "network": (NETWORKS, frozenset({"embedding_dim"})),
    "method.mixing": (MIXINGS, frozenset()),
    "method.weighting": (WEIGHTINGS, frozenset()),
    "method.supervised_loss": (SUPERVISED_LOSSES, frozenset()),
    "method.unsupervised_loss": (UNSUPERVISED_LOSSES, frozenset()),
}
_EVERY_DATA = {"cache", "workers", "rare_class_sampling", "mapping"}  # keys that no reader takes
_TWO_DOMAINS = {"source", "target", "upper_bound"}


def refuse_former(tree: Mapping[str, Any]) -> None:
    """Raise InputError for a key that has moved. The message names the current key."""
    for key, value in _keys(tree):
        if key in FORMER and not (isinstance(value, dict) or _is_switch(key, value)):
            raise InputError(f"{key} is now {FORMER[key]}{_HOW.get(key, '')}")


def without_leftovers(section: str, tree: Mapping[str, Any], name: Any) -> list[str]:
    """Keys of a section's ``tree`` that have no meaning after its ``name`` changes to this one."""
    parts, always = _CHOICES.get(section, ({}, frozenset()))
    if tree.get("name") in (None, name) or section not in _CHOICES:
        return []
    if section.startswith("data") and name == "domain":
        known = _TWO_DOMAINS
    elif name in parts:
        known = arguments(parts[name])
    else:
        return []  # the schema refuses this name
    known = known | always | {"name"} | (_EVERY_DATA if section.startswith("data") else set())
    return [key for key in tree if key not in known]


def users(key: str) -> list[str]:
    """The values of a section's ``name`` that use the key; empty if all do."""
    section, _, name = key.rpartition(".")
    if section not in ("data", "network"):
        return []
    parts, always = _CHOICES[section]
    if name in always or name == "name" or name in _EVERY_DATA:
        return []
    if name in _TWO_DOMAINS:
        return ["domain"]
    known = [each for each, part in parts.items() if name in arguments(part)]
    return [] if len(known) == len(parts) else known


def upgraded(tree: dict[str, Any]) -> dict[str, Any]:
    """The configuration of an earlier version's run, with the current keys."""
    method = dict(tree.get("method", {}))
    if "alpha" not in method:  # an earlier version saved all of its flat keys, so this is no such file
        return tree
    data = dict(tree.get("data", {}))
    method["jitter"] = method["jitter"] if method.pop("strong_view") else "none"
    confident = method["unsupervised_weighting"] == "confident_share"
    symmetric, temperature = method.pop("symmetric"), method.pop("denoise_temperature")
    denoise = method.pop("denoise")
    rare, rare_temperature = data.pop("rare_class_sampling"), data.pop("rare_class_temperature")
    new: dict[str, Any] = {key: value for key, value in tree.items() if key not in ("data", "method")}
    new["data"] = {**data, "rare_class_sampling": {"temperature": rare_temperature} if rare else None}
    new["method"] = {}
    contrast = method.pop("contrast")
    for name, value in method.items():
        _put(new, FORMER.get(f"method.{name}", f"method.{name}"), value)
    if symmetric:
        new["method"]["unsupervised_loss"] = {"name": "symmetric", "reverse_weight": symmetric}
    if confident:
        new["method"]["weighting"]["threshold"] = method["threshold"]
    for name in ("supervised_loss", "unsupervised_loss", "weighting"):
        section, parts = new["method"][name], _CHOICES[f"method.{name}"][0]
        part = parts.get(section["name"])  # none while it is `auto`
        own = {} if part is None else inspect.signature(part).parameters
        new["method"][name] = {
            key: value for key, value in section.items() if key == "name" or (key in own and own[key].default != value)
        }
    new["method"]["denoising"] = {"temperature": temperature} if denoise else None
    if not contrast:
        new["method"]["contrast"] = None
    return new


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[leaf] = value


def _keys(sections: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each key, such as ``data.source.root``, with its value, and each section."""
    for name, value in sections.items():
        yield f"{above}{name}", value
        if isinstance(value, dict):
            yield from _keys(value, f"{above}{name}.")


def _is_switch(key: str, value: Any) -> bool:
    """Whether a key with the name of a former one is a section written as a switch."""
    return key in ("method.prototypes",) and isinstance(value, bool)
