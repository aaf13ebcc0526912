"""Keys of `method`: the method and its parts, a section each."""

from __future__ import annotations

from typing import Literal

from u2pl.config.fields import Auto, Section
from u2pl.config.parts import (
    AlignmentSection,
    CamSection,
    ContrastSection,
    DenoisingSection,
    MaskedConsistencySection,
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
    """The strong views of unlabeled images before mixing."""

    number: Literal[1, 2] = 1
    """number of strong views of each unlabeled image; `unimatch` and `unimatch_v2` always have two"""
    jitter: Auto[Literal["unlabeled", "mixed", "none"]] = "unlabeled"
    """images with photometric jitter: `unlabeled`, `mixed` (after mixing, with pasted pixels) or `none`"""


class ImagePriorConfig(Section):
    """The classes of an unlabeled image, predicted from labeled images that are similar. Not in the paper."""

    sharpness: Auto[AtLeast0] = 0.0
    """strength of the image prior; 0: no prior; 8 suits images that show few of many classes"""


class LossWeights(Section):
    """The weight of each loss by its name. The weight of L_s is 1."""

    unsupervised: AtLeast0 = 1.0
    """weight of L_u, the loss of pseudo-labels, in addition to `method.weighting`"""
    contrastive: AtLeast0 = 0.1
    """lambda_c, weight of the contrastive loss L_c"""
    negative: AtLeast0 = 0.0
    """weight of negative learning, U2PL's idea without a memory bank; 0: off"""
    auxiliary: AtLeast0 = 0.4
    """weight of the auxiliary head's loss, with `network.auxiliary`"""
    masked: AtLeast0 = 1.0
    """weight of the loss of images with hidden patches, with `method.masked_consistency`"""
    classification: AtLeast0 = 1.0
    """weight of the classification loss on image-level tags, with `weak_u2pl`"""


class MethodConfig(Section):
    """The method and its parts. Unused parts are kept, so that a baseline needs only one override."""

    name: Literal["supervised", "mean_teacher", "fixmatch", "unimatch", "unimatch_v2", "u2pl", "weak_u2pl"] = "u2pl"
    """the method: `supervised`, `mean_teacher`, `fixmatch`, `unimatch`, `unimatch_v2`, `u2pl` or `weak_u2pl`"""
    threshold: Auto[Share] = 0.95
    """smallest confidence of a pseudo-label that trains, with `fixmatch`, `unimatch` and `unimatch_v2`"""
    feature_dropout: bool = False
    """add UniMatch's view to L_u: the unmixed image with half of its features dropped"""
    complementary_dropout: bool = False
    """drop complementary channels of two strong views, as `unimatch_v2` always does"""
    diagnose: bool = False
    """measure pseudo-labels, queues and gradients with masks that training never uses"""
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
    """the contrastive loss L_c with its memory bank; `false`: none, which turns `u2pl` into `mean_teacher`"""
    loss_weights: LossWeights = LossWeights()
    alignment: AlignmentSection | None = None
    """give pseudo-labels the class frequencies of labels (ReMixMatch); `true` or its keys; null: off"""
    image_prior: ImagePriorConfig = ImagePriorConfig()
    prototypes: PrototypesSection | None = None
    """use running class centres as positives of the contrast; `true` or its keys; null: off"""
    denoising: DenoisingSection | None = None
    """denoise pseudo-labels by prototypes (ProDA), needs a contrast; `true` or its keys; null: off"""
    masked_consistency: MaskedConsistencySection | None = None
    """train on unlabeled images with hidden patches (MIC), needs a teacher; `true` or its keys; null: off"""
    cam: CamSection = CamSection()

    @property
    def kind(self) -> type[Method]:
        """The class of the method. It defines what the method needs."""
        return METHODS[self.name]

    @property
    def trains_embeddings(self) -> bool:
        """Whether there is a contrast, so that the network needs a projection head."""
        return self.kind.has_contrast and self.contrast is not None

    @property
    def uses_negative_keys(self) -> bool:
        """Whether a loss uses negative keys."""
        return self.trains_embeddings or (self.kind.has_teacher and self.loss_weights.negative > 0)

    @property
    def balances(self) -> bool:
        """Whether there are pseudo-labels, and rare classes weigh more in both labels and pseudo-labels."""
        losses = self.supervised_loss.name, self.unsupervised_loss.name
        return self.kind.semi_supervised and losses == ("balanced", "balanced")

    @property
    def strong_views_of_an_image(self) -> int:
        """V, the number of strong views. Some methods fix it."""
        return self.strong_views.number if self.kind.strong_views is None else self.kind.strong_views
