"""Keys of `method`: the method and its parts, a section each."""

from __future__ import annotations

from typing import Literal

from u2pl.config.fields import Auto, Section
from u2pl.config.parts import (
    AlignmentSection,
    CamSection,
    ContrastSection,
    DenoisingSection,
    MixingSection,
    NegativeKeysSection,
    PrototypesSection,
    ReliabilitySection,
    ScheduleSection,
    SupervisedSection,
    TeacherSection,
    UnsupervisedSection,
    WeightingSection,
)
from u2pl.methods import METHODS, Method
from u2pl.structures import AtLeast0, Share


class StrongViewsConfig(Section):
    """The strong views of unlabeled images, before they are mixed."""

    number: Literal[1, 2] = 1
    """strong views of each unlabeled image; `unimatch` always has two"""
    jitter: Auto[Literal["unlabeled", "mixed", "none"]] = "unlabeled"
    """which images get photometric jitter: `unlabeled` ones, `mixed` ones (pasted pixels, too), or none"""


class ImagePriorConfig(Section):
    """What images like an unlabeled one say of its classes. Not in the paper."""

    sharpness: Auto[AtLeast0] = 0.0
    """how much the prior says; 0: there is none, 8: where images differ in what they show"""


class LossWeights(Section):
    """The weight of each loss by its name. L_s weighs one."""

    unsupervised: AtLeast0 = 1.0
    """of L_u, beside its own weighting"""
    contrastive: AtLeast0 = 0.1
    """lambda_c, of L_c"""
    negative: AtLeast0 = 0.0
    """of negative learning: U2PL's idea without a memory bank; 0: off"""
    auxiliary: AtLeast0 = 0.4
    """of the auxiliary head's loss, for `network.auxiliary`"""
    classification: AtLeast0 = 1.0
    """of the loss of whole images by their tags, for `weak_u2pl`"""


class MethodConfig(Section):
    """The method and its parts. Parts that a method does not use are kept, so that a baseline is one override away."""

    name: Literal["supervised", "mean_teacher", "fixmatch", "unimatch", "u2pl", "weak_u2pl"] = "u2pl"
    """the training method"""
    threshold: Share = 0.95
    """confidence of a pseudo-label that `fixmatch` and `unimatch` believe"""
    feature_dropout: bool = False
    """UniMatch's further view in L_u: the unmixed image, half of its features dropped"""
    diagnose: bool = False
    """measure pseudo-labels, queues and gradients by masks that training never sees"""
    reliability: ReliabilitySection = ReliabilitySection()
    schedule: ScheduleSection = ScheduleSection()
    teacher: TeacherSection = TeacherSection()
    strong_views: StrongViewsConfig = StrongViewsConfig()
    mixing: MixingSection = MixingSection()
    supervised_loss: SupervisedSection = SupervisedSection()
    unsupervised_loss: UnsupervisedSection = UnsupervisedSection()
    weighting: WeightingSection = WeightingSection()
    negative_keys: NegativeKeysSection = NegativeKeysSection()
    contrast: ContrastSection | None = ContrastSection()
    """L_c with its memory bank; `false`: none, which makes `mean_teacher` of `u2pl`"""
    loss_weights: LossWeights = LossWeights()
    alignment: AlignmentSection | None = None
    """pseudo-labels become as frequent as labels; `true` or its keys"""
    image_prior: ImagePriorConfig = ImagePriorConfig()
    prototypes: PrototypesSection | None = None
    """positives of the contrast are class centres kept over training; `true` or its keys"""
    denoising: DenoisingSection | None = None
    """pseudo-labels by the distance to prototypes (ProDA); needs a contrast; `true` or its keys"""
    cam: CamSection = CamSection()

    @property
    def kind(self) -> type[Method]:
        """The class of the method, which says what it needs."""
        return METHODS[self.name]

    @property
    def trains_embeddings(self) -> bool:
        """Whether there is a contrast, so that the network needs a projection head."""
        return self.kind.has_contrast and self.contrast is not None

    @property
    def uses_negative_keys(self) -> bool:
        """Whether a loss asks which classes a pixel is sure not to be."""
        return self.trains_embeddings or (self.kind.has_teacher and self.loss_weights.negative > 0)

    @property
    def balances(self) -> bool:
        """Whether a teacher learns from labels and from pseudo-labels that weigh more where they are rare."""
        losses = self.supervised_loss.name, self.unsupervised_loss.name
        return self.kind.has_teacher and losses == ("balanced", "balanced")

    @property
    def strong_views_of_an_image(self) -> int:
        """V, which some methods are defined by."""
        return self.strong_views.number if self.kind.strong_views is None else self.kind.strong_views
