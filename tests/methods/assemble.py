"""Methods put together from flat options, and the first half of a step, for the tests of all methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from u2pl.methods import U2PL, EmaTeacher, LambdaU, MeanTeacher, StrongViews, WeakU2PL
from u2pl.methods.extras.alignment import AlignPseudoLabels
from u2pl.methods.extras.class_weights import ClassWeightCorrection
from u2pl.methods.extras.denoising import DenoisePseudoLabels
from u2pl.methods.extras.feature_dropout import FeatureDropoutLoss
from u2pl.methods.extras.image_prior import AddImagePrior
from u2pl.methods.extras.negative_learning import NegativeLearningLoss
from u2pl.methods.keys import Keys
from u2pl.methods.parts import FurtherLoss, Refiner
from u2pl.methods.seeding import Seeding
from u2pl.methods.strong_views import MixedViews
from u2pl.methods.tags import ClassificationLoss, LimitToTags
from u2pl.pixels import DistributionAlignment, NegativeLearning, PrototypicalDenoising, UnreliableContrast
from u2pl.pixels.losses import cross_entropy
from u2pl.structures import Batch, PseudoLabel, SegmentationOutput


def u2pl(network: nn.Module, *, contrast: UnreliableContrast | None, **options: Any) -> U2PL:
    """U2PL around a network; for the options see :func:`parts`."""
    return U2PL(contrast=contrast, **parts(network, **options))


def mean_teacher(network: nn.Module, **options: Any) -> MeanTeacher:
    """A mean teacher around a network; for the options see :func:`parts`."""
    return MeanTeacher(**parts(network, **options))


def weak_u2pl(network: nn.Module, *, contrast: UnreliableContrast | None, seeding: Seeding, **options: Any) -> WeakU2PL:
    """Weakly supervised U2PL around a network with a classification head; for the options see :func:`parts`."""
    step = U2PL(contrast=contrast, **parts(network, tags=True, **options))
    seed_refiners = [each for each in step.refiners if isinstance(each, (ClassWeightCorrection, LimitToTags))]
    return WeakU2PL(step, seeding=seeding, seed_refiners=seed_refiners)


def parts(
    network: nn.Module,
    *,
    ema_decay: float = 0.99,
    teacher_passes: Any = 2,
    mixing: Any = None,
    jitter: Any = None,
    copy_paste: Any = None,
    class_weight: Tensor | None = None,
    alignment: DistributionAlignment | None = None,
    denoising: PrototypicalDenoising | None = None,
    tags: bool = False,
    feature_dropout: bool = False,
    negative_learning: NegativeLearning | None = None,
    weighting: Any = LambdaU(),
    unsupervised_loss: Any = cross_entropy,
    **others: Any,
) -> dict[str, Any]:
    """The arguments of :class:`U2PL` but for the contrast. What is not named here is one of them already."""
    refiners: list[Refiner] = []
    if class_weight is not None:
        refiners.append(ClassWeightCorrection(class_weight))
    refiners.append(AddImagePrior())
    if alignment is not None:
        refiners.append(AlignPseudoLabels(alignment))
    if denoising is not None:
        refiners.append(DenoisePseudoLabels(denoising))
    if tags:
        refiners.append(LimitToTags())
    further_losses: list[FurtherLoss] = []
    if tags:
        further_losses.append(ClassificationLoss())
    if feature_dropout:
        further_losses.append(FeatureDropoutLoss(weighting, unsupervised_loss))
    if negative_learning is not None:
        further_losses.append(NegativeLearningLoss(negative_learning))
    return {
        "teacher": EmaTeacher(network, ema_decay=ema_decay, passes=teacher_passes),
        "mix": StrongViews(mixing, jitter=jitter, copy_paste=copy_paste),
        "refiners": refiners,
        "further_losses": further_losses,
        "weighting": weighting,
        "unsupervised_loss": unsupervised_loss,
        **others,
    }


@dataclass
class Views:
    """What a step sees before the student does."""

    teacher: SegmentationOutput  #: refined, of the weak images, perhaps of the labeled ones before them
    pseudo: PseudoLabel  #: of the weak images
    mixed: MixedViews
    images: Tensor  #: labeled images, then the mixed ones
    keys: Keys | None


def look(method: U2PL, batch: Batch, progress: float) -> Views:
    """The first half of a step. With the same seed the step itself draws the same masks."""
    teacher = method.teacher_pass(batch)
    pseudo = method.reliability.partition(method.make_pseudo_labels(teacher, batch), progress)
    mixed = method.mix(batch, pseudo)
    images = torch.cat((batch.image, mixed.image))
    return Views(teacher, pseudo, mixed, images, method.keys(teacher, batch, mixed))


def with_teacher(method: Any, other: nn.Module) -> Any:
    """The method with a teacher that has begun, and is another network."""
    teacher = method.u2pl.teacher if isinstance(method, WeakU2PL) else method.teacher
    teacher.network.load_state_dict(other.state_dict())
    teacher.started = True
    return method
