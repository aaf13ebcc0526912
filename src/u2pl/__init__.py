"""u2pl: label-efficient semantic segmentation. Every pixel trains the model, unreliable ones as negative keys."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from u2pl.commands.train import train
    from u2pl.config.overrides import load_config
    from u2pl.methods import (
        U2PL,
        EmaTeacher,
        FixMatch,
        MeanTeacher,
        Schedule,
        StrongViews,
        Supervised,
        UniMatch,
        UniMatchV2,
        WeakU2PL,
    )
    from u2pl.networks import deeplabv3plus, smp_network
    from u2pl.pixels import Reliability, UnreliableContrast
    from u2pl.predictor import Predictor, load_network
    from u2pl.report.showing import show
    from u2pl.structures import Batch, PseudoLabel, SegmentationOutput

__version__ = "0.1.0"

__all__ = [
    "U2PL",
    "Batch",
    "EmaTeacher",
    "FixMatch",
    "MeanTeacher",
    "Predictor",
    "PseudoLabel",
    "Reliability",
    "Schedule",
    "SegmentationOutput",
    "StrongViews",
    "Supervised",
    "UniMatch",
    "UniMatchV2",
    "UnreliableContrast",
    "WeakU2PL",
    "deeplabv3plus",
    "load_config",
    "load_network",
    "show",
    "smp_network",
    "train",
]

#: Where each name is. It is imported when it is first used: `u2pl --help` needs no PyTorch.
_MODULES = {
    "u2pl.commands.train": ("train",),
    "u2pl.config.overrides": ("load_config",),
    "u2pl.methods": (
        *("U2PL", "EmaTeacher", "FixMatch", "MeanTeacher", "Schedule", "StrongViews"),
        *("Supervised", "UniMatch", "UniMatchV2", "WeakU2PL"),
    ),
    "u2pl.networks": ("deeplabv3plus", "smp_network"),
    "u2pl.pixels": ("Reliability", "UnreliableContrast"),
    "u2pl.predictor": ("Predictor", "load_network"),
    "u2pl.report.showing": ("show",),
    "u2pl.structures": ("Batch", "PseudoLabel", "SegmentationOutput"),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
