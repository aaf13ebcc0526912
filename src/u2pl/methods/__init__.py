"""Training methods. Each step reads like the algorithm of its paper."""

from u2pl.methods.base import Method
from u2pl.methods.ema import EmaTeacher
from u2pl.methods.fixmatch import FixMatch, UniMatch
from u2pl.methods.mean_teacher import MeanTeacher
from u2pl.methods.schedule import Schedule
from u2pl.methods.strong_views import StrongViews
from u2pl.methods.supervised import Supervised
from u2pl.methods.u2pl import U2PL
from u2pl.methods.unimatch_v2 import UniMatchV2
from u2pl.methods.weak_u2pl import WeakU2PL
from u2pl.methods.weighting import ConfidentShare, LambdaU, ReliableShare

#: Methods by their name in a configuration.
METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "mean_teacher": MeanTeacher,
    "fixmatch": FixMatch,
    "unimatch": UniMatch,
    "unimatch_v2": UniMatchV2,
    "u2pl": U2PL,
    "weak_u2pl": WeakU2PL,
}

__all__ = [
    "METHODS",
    "U2PL",
    "ConfidentShare",
    "EmaTeacher",
    "FixMatch",
    "LambdaU",
    "MeanTeacher",
    "Method",
    "ReliableShare",
    "Schedule",
    "StrongViews",
    "Supervised",
    "UniMatch",
    "UniMatchV2",
    "WeakU2PL",
]
