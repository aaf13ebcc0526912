"""The sections of the method's parts. Each is derived from the part that it builds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from u2pl.config.fields import Section
from u2pl.config.part import choice_of, section_of
from u2pl.data.rare_classes import RareClassSampling
from u2pl.methods import ConfidentShare, EmaTeacher, LambdaU, ReliableShare, Schedule
from u2pl.methods.extras.masked_consistency import MaskedConsistencyLoss
from u2pl.methods.seeding import Seeding
from u2pl.pixels import (
    AdaptiveCutMix,
    ClassMix,
    CrossDomainClassMix,
    CutMix,
    CutOut,
    DistributionAlignment,
    NoMixing,
    Prototypes,
    PrototypicalDenoising,
    Reliability,
    UnreliableContrast,
)
from u2pl.pixels.cam import PixelAdaptiveRefinement
from u2pl.pixels.losses import BalancedCrossEntropy, CrossEntropy, OhemCrossEntropy, SymmetricCrossEntropy
from u2pl.pixels.negative_keys import NegativeKeys

Parts = dict[str, Callable[..., Any]]  #: the parts that a section can build, by its ``name``
MIXINGS: Parts = {
    "cutmix": CutMix,
    "classmix": ClassMix,
    "cutout": CutOut,
    "ael": AdaptiveCutMix,
    "cross_domain": CrossDomainClassMix,
    "none": NoMixing,
}
SUPERVISED_LOSSES: Parts = {
    "cross_entropy": CrossEntropy,
    "ohem": OhemCrossEntropy,
    "balanced": BalancedCrossEntropy,
}
UNSUPERVISED_LOSSES: Parts = {
    "cross_entropy": CrossEntropy,
    "balanced": BalancedCrossEntropy,
    "symmetric": SymmetricCrossEntropy,
}
WEIGHTINGS: Parts = {"lambda_u": LambdaU, "reliable_share": ReliableShare, "confident_share": ConfidentShare}


if TYPE_CHECKING:

    class PartSection(Section):
        """A section with the keys of a part."""

        def __getattr__(self, key: str) -> Any: ...

    ReliabilitySection: TypeAlias = PartSection
    ScheduleSection: TypeAlias = PartSection
    TeacherSection: TypeAlias = PartSection
    NegativeKeysSection: TypeAlias = PartSection
    ContrastSection: TypeAlias = PartSection
    CamSection: TypeAlias = PartSection
    MixingSection: TypeAlias = PartSection
    WeightingSection: TypeAlias = PartSection
    SupervisedSection: TypeAlias = PartSection
    UnsupervisedSection: TypeAlias = PartSection
    RareClassSection: TypeAlias = PartSection
    AlignmentSection: TypeAlias = PartSection
    PrototypesSection: TypeAlias = PartSection
    DenoisingSection: TypeAlias = PartSection
    MaskedConsistencySection: TypeAlias = PartSection
else:
    ReliabilitySection = section_of(Reliability, auto=("min_confidence",))
    ScheduleSection = section_of(Schedule, auto=("warmup", "ramp"))
    TeacherSection = section_of(EmaTeacher, auto=("ema_decay",))
    NegativeKeysSection = section_of(NegativeKeys, auto=("low_rank", "high_rank"))
    ContrastSection = section_of(
        UnreliableContrast, auto=("bank_size", "keys_per_step"), leave_out=("prototype_positives", "keep_truth")
    )
    CamSection = section_of(Seeding, nested={"refinement": section_of(PixelAdaptiveRefinement)})
    MixingSection = choice_of(MIXINGS, "cutmix", meaning="how strong views are mixed", auto=True)
    WeightingSection = choice_of(WEIGHTINGS, "lambda_u", meaning="how much pseudo-labels weigh", auto=True)
    SupervisedSection = choice_of(SUPERVISED_LOSSES, "cross_entropy", meaning="the loss of labels", auto=True)
    UnsupervisedSection = choice_of(
        UNSUPERVISED_LOSSES, "cross_entropy", meaning="the loss of pseudo-labels", auto=True
    )
    RareClassSection = section_of(RareClassSampling)
    AlignmentSection = section_of(DistributionAlignment)
    PrototypesSection = section_of(Prototypes)
    DenoisingSection = section_of(PrototypicalDenoising)
    MaskedConsistencySection = section_of(MaskedConsistencyLoss)
