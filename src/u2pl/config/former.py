"""Keys that have moved: what they are called now, and how a run folder of an earlier version is read."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from u2pl.config.choosing import CHOICES
from u2pl.errors import InputError

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


def refuse_former(tree: Mapping[str, Any]) -> None:
    """Raise InputError for a key that has moved. The message names the current key."""
    for key, value in _keys(tree):
        if key in FORMER and not isinstance(value, dict):
            raise InputError(f"{key} is now {FORMER[key]}{_HOW.get(key, '')}")


def upgraded(tree: dict[str, Any]) -> dict[str, Any]:
    """The saved configuration of an earlier version, with the keys of today.

    Versions have added keys one by one, so any key may be missing.
    """
    method, data = dict(tree.get("method") or {}), dict(tree.get("data") or {})
    if not any(f"method.{name}" in FORMER and not isinstance(value, dict) for name, value in method.items()):
        return tree
    new: dict[str, Any] = {key: value for key, value in tree.items() if key not in ("data", "method")}
    rare, temperature = data.pop("rare_class_sampling", False), data.pop("rare_class_temperature", None)
    new["data"] = data
    if rare:
        data["rare_class_sampling"] = True if temperature is None else {"temperature": temperature}
    if not method.pop("strong_view", True):
        method["jitter"] = "none"
    symmetric, contrast = method.pop("symmetric", 0), method.pop("contrast", True)
    denoise, temperature = method.pop("denoise", False), method.pop("denoise_temperature", None)
    new["method"] = {}
    for name, value in method.items():
        _put(new, FORMER.get(f"method.{name}", f"method.{name}"), value)
    parts = new["method"]
    if symmetric:
        parts["unsupervised_loss"] = {"name": "symmetric", "reverse_weight": symmetric}
    if method.get("unsupervised_weighting") == "confident_share" and "threshold" in method:
        parts["weighting"]["threshold"] = method["threshold"]
    for name in ("supervised_loss", "unsupervised_loss", "weighting"):
        if name in parts:
            parts[name] = _of_its_part(f"method.{name}", parts[name])
    if denoise:
        parts["denoising"] = True if temperature is None else {"temperature": temperature}
    if not contrast:
        parts["contrast"] = None
    return new


def _of_its_part(section: str, values: dict[str, Any]) -> dict[str, Any]:
    """The keys of a section that its part has, and whose values are not the part's own."""
    parts, default = CHOICES[section]
    part = parts.get(values.get("name", default))  # none while it is `auto`
    own = {} if part is None else inspect.signature(part).parameters
    return {key: value for key, value in values.items() if key == "name" or (key in own and own[key].default != value)}


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
