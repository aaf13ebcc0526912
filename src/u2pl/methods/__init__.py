"""One training step each, written to read like the algorithm of its paper."""

from u2pl.methods.fixmatch import FixMatch, UniMatch
from u2pl.methods.mean_teacher import MeanTeacher
from u2pl.methods.schedule import Schedule
from u2pl.methods.supervised import Supervised
from u2pl.methods.u2pl import U2PL
from u2pl.methods.weak_u2pl import WeakU2PL
from u2pl.methods.weighting import ConfidentShare, LambdaU, ReliableShare

__all__ = [
    "U2PL",
    "ConfidentShare",
    "FixMatch",
    "LambdaU",
    "MeanTeacher",
    "ReliableShare",
    "Schedule",
    "Supervised",
    "UniMatch",
    "WeakU2PL",
]
