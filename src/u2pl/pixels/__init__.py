"""Parts of the methods: pure functions and small modules on tensors. No network, no file, no configuration."""

from u2pl.pixels.adaptive_mixing import AdaptiveCopyPaste, AdaptiveCutMix, ClassConfidence
from u2pl.pixels.alignment import DistributionAlignment
from u2pl.pixels.contrast import UnreliableContrast
from u2pl.pixels.cross_domain_mixing import CrossDomainClassMix, SourceMix
from u2pl.pixels.memory_bank import MemoryBank
from u2pl.pixels.mixing import ClassMix, CutMix, CutOut, Mix, Mixing, NoMixing, Paste
from u2pl.pixels.negative_learning import NegativeLearning
from u2pl.pixels.prototypes import Prototypes, PrototypicalDenoising
from u2pl.pixels.reliability import Reliability, entropy_threshold, partition

__all__ = [
    "AdaptiveCopyPaste",
    "AdaptiveCutMix",
    "ClassConfidence",
    "ClassMix",
    "CrossDomainClassMix",
    "CutMix",
    "CutOut",
    "DistributionAlignment",
    "MemoryBank",
    "Mix",
    "Mixing",
    "NegativeLearning",
    "NoMixing",
    "Paste",
    "Prototypes",
    "PrototypicalDenoising",
    "Reliability",
    "SourceMix",
    "UnreliableContrast",
    "entropy_threshold",
    "partition",
]
