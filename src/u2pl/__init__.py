"""u2pl: label-efficient semantic segmentation. Every pixel trains the model, unreliable ones as negative keys."""

from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.methods import U2PL, EmaTeacher, FixMatch, MeanTeacher, Schedule, StrongViews, Supervised, UniMatch, WeakU2PL
from u2pl.networks import deeplabv3plus, smp_network
from u2pl.pixels import Reliability, UnreliableContrast
from u2pl.predictor import Predictor, load_network
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
    "UnreliableContrast",
    "WeakU2PL",
    "deeplabv3plus",
    "load_config",
    "load_network",
    "smp_network",
    "train",
]
