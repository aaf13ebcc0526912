"""Configuration -> method. Each part comes from its section."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from u2pl.config.fields import AUTO
from u2pl.config.part import build_choice
from u2pl.config.parts import MIXINGS, SUPERVISED_LOSSES, UNSUPERVISED_LOSSES, WEIGHTINGS
from u2pl.config.schema import MethodConfig
from u2pl.data.photometric import Photometric
from u2pl.errors import InputError
from u2pl.methods import (
    U2PL,
    EmaTeacher,
    FixMatch,
    MeanTeacher,
    ReliableShare,
    Schedule,
    StrongViews,
    Supervised,
    UniMatch,
    UniMatchV2,
    WeakU2PL,
)
from u2pl.methods.base import Method
from u2pl.methods.extras.alignment import AlignPseudoLabels
from u2pl.methods.extras.class_weights import ClassWeightCorrection
from u2pl.methods.extras.denoising import DenoisePseudoLabels
from u2pl.methods.extras.feature_dropout import FeatureDropoutLoss
from u2pl.methods.extras.image_prior import AddImagePrior
from u2pl.methods.extras.masked_consistency import MaskedConsistencyLoss
from u2pl.methods.extras.negative_learning import NegativeLearningLoss
from u2pl.methods.parts import FurtherLoss, Refiner
from u2pl.methods.seeding import Seeding
from u2pl.methods.tags import ClassificationLoss, LimitToTags
from u2pl.pixels import (
    AdaptiveCopyPaste,
    AdaptiveCutMix,
    ClassConfidence,
    DistributionAlignment,
    NegativeLearning,
    Prototypes,
    PrototypicalDenoising,
    Reliability,
    UnreliableContrast,
)
from u2pl.pixels.cam import PixelAdaptiveRefinement
from u2pl.pixels.contrast import Gather
from u2pl.pixels.losses import rarity_weight
from u2pl.pixels.negative_keys import NegativeKeys
from u2pl.structures import Reduce


def build_method(
    method: MethodConfig,
    network: nn.Module,
    *,
    num_classes: int,
    embedding_dim: int,
    class_share: Tensor | None = None,
    gather: Gather | None = None,
    total: Reduce | None = None,
    processes: int = 1,
) -> Method:
    """Build the method for a freshly built student.

    Args:
        class_share: (C,), share of each class among labeled pixels; corrects a teacher trained with balanced losses.
        gather: collects keys from all processes.
        total: sums a tensor over all processes.
        processes: their number.

    Raises InputError if the method cannot use one of the parts.
    """
    average = None if total is None else average_of(total, processes)
    shared = {"average": average, "total": total}
    supervised_loss = build_choice(method.supervised_loss, SUPERVISED_LOSSES, "method.supervised_loss", shared)
    if method.name == "supervised":
        return Supervised(supervised_loss=supervised_loss)
    mix, masked = build_strong_views(method, num_classes, total), build_masked_consistency(method, average)
    contrast, prototypes = None, build_prototypes(method, num_classes, embedding_dim, total)
    if method.trains_embeddings:
        contrast = build_contrast(method, num_classes, embedding_dim, gather, processes, prototypes)
    refiners = build_refiners(method, num_classes, class_share, prototypes, total)
    losses: dict[str, Any] = {
        "supervised_loss": supervised_loss,
        "unsupervised_loss": build_choice(
            method.unsupervised_loss, UNSUPERVISED_LOSSES, "method.unsupervised_loss", shared
        ),
    }
    if method.kind in (FixMatch, UniMatch):
        return method.kind(
            threshold=method.threshold, mix=mix, weighting=ReliableShare(average), refiners=refiners, **losses
        )
    parts: dict[str, Any] = {
        "mix": mix,
        "reliability": Reliability(**dict(method.reliability), total=total),
        "schedule": Schedule(**dict(method.schedule)),
        "weighting": build_choice(method.weighting, WEIGHTINGS, "method.weighting", shared),
        "refiners": refiners,
        **losses,
    }
    parts["further_losses"] = build_further_losses(
        method, num_classes, parts["weighting"], parts["unsupervised_loss"], average
    )
    parts["further_losses"] += masked
    teacher = EmaTeacher(network, **dict(method.teacher))
    if method.kind is UniMatchV2:
        threshold, share = method.threshold, ReliableShare(average)
        own: dict[str, Any] = {"mix": mix, "refiners": refiners, "further_losses": masked}
        return UniMatchV2(teacher, threshold=threshold, weighting=share, **own, **losses)
    if method.kind.uses_tags:
        return build_weak(method, teacher, contrast, parts)
    return MeanTeacher(teacher, **parts) if contrast is None else U2PL(teacher, contrast=contrast, **parts)


def average_of(total: Reduce, processes: int) -> Reduce:
    """A function that averages a tensor over processes, from one that sums it."""

    def average(tensor: Tensor) -> Tensor:
        return total(tensor) / processes

    return average


def build_weak(
    method: MethodConfig, teacher: EmaTeacher, contrast: UnreliableContrast | None, parts: dict[str, Any]
) -> WeakU2PL:
    """The step of U2PL with seeds from tags."""
    seeding = build_seeding(method)
    parts["schedule"] = replace(parts["schedule"], warmup=max(parts["schedule"].warmup, seeding.warmup))
    seed_refiners = [each for each in parts["refiners"] if isinstance(each, (ClassWeightCorrection, LimitToTags))]
    return WeakU2PL(U2PL(teacher, contrast=contrast, **parts), seeding=seeding, seed_refiners=seed_refiners)


def build_strong_views(method: MethodConfig, num_classes: int, total: Reduce | None = None) -> StrongViews:
    """How strong views are mixed. Raises InputError if the method cannot use the mixing."""
    name = method.mixing.name
    if name == "ael" and not method.kind.has_teacher:
        raise InputError(f"method.mixing.name: ael needs mean_teacher or u2pl, not {method.name}; use cutmix")
    if name in ("ael", "cross_domain") and method.kind.uses_tags:  # a pasted class would be missing in the image's tags
        raise InputError(f"method.mixing.name: {name} pastes labels, but weak_u2pl has none; use cutmix")
    confidence = ClassConfidence(num_classes, reduce=total) if name == "ael" else None
    injected = {"num_classes": num_classes, "confidence": confidence}
    mixing = build_choice(method.mixing, MIXINGS, "method.mixing", injected)
    copy_paste = AdaptiveCopyPaste(mixing.confidence) if isinstance(mixing, AdaptiveCutMix) else None
    jitter = Photometric() if method.strong_views.jitter == "mixed" else None
    return StrongViews(mixing, jitter=jitter, copy_paste=copy_paste, complementary=drops_complementary_channels(method))


def drops_complementary_channels(method: MethodConfig) -> bool:
    """Whether two strong views get complementary channels. Raises InputError if there are no such two views."""
    if method.kind is UniMatchV2:
        return True
    if method.complementary_dropout and not method.kind.has_teacher:
        raise InputError(
            f"method.complementary_dropout: needs mean_teacher or u2pl, not {method.name}; set it to false"
        )
    if method.complementary_dropout and method.strong_views_of_an_image != 2:
        raise InputError("method.complementary_dropout: needs two strong views; set method.strong_views.number=2")
    if method.complementary_dropout and method.feature_dropout:
        raise InputError("method.complementary_dropout: set either it or method.feature_dropout, not both")
    return method.complementary_dropout


def build_refiners(
    method: MethodConfig,
    num_classes: int,
    class_share: Tensor | None,
    prototypes: Prototypes | None,
    total: Reduce | None,
) -> list[Refiner]:
    """The refiners of the teacher's output, in the order in which they apply."""
    refiners: list[Refiner] = []
    if class_share is not None:
        refiners.append(ClassWeightCorrection(rarity_weight(class_share)))
    refiners.append(AddImagePrior())  # does nothing for a batch without a prior
    if method.alignment is not None:
        alignment = DistributionAlignment(num_classes, **dict(method.alignment), reduce=total)
        refiners.append(AlignPseudoLabels(alignment))
    if method.denoising is not None and prototypes is not None:
        refiners.append(DenoisePseudoLabels(PrototypicalDenoising(prototypes, **dict(method.denoising))))
    if method.kind.uses_tags:
        refiners.append(LimitToTags())
    return refiners


def build_further_losses(
    method: MethodConfig, num_classes: int, weighting: Any, unsupervised_loss: Any, average: Reduce | None = None
) -> list[FurtherLoss]:
    """Losses that are not in the paper."""
    losses: list[FurtherLoss] = []
    if method.kind.uses_tags:
        losses.append(ClassificationLoss(average))
    if method.feature_dropout:
        losses.append(FeatureDropoutLoss(weighting, unsupervised_loss))
    if method.loss_weights.negative > 0:
        losses.append(NegativeLearningLoss(NegativeLearning(build_negative_keys(method, num_classes), average)))
    return losses


def build_masked_consistency(method: MethodConfig, average: Reduce | None = None) -> list[FurtherLoss]:
    """The loss of images with hidden patches, if it is on. Raises InputError if there is no teacher to label them."""
    if method.masked_consistency is None:
        return []
    if not method.kind.has_teacher:
        raise InputError(
            "method.masked_consistency: needs a teacher (mean_teacher, u2pl, unimatch_v2 or weak_u2pl), which "
            f"{method.name} does not have; set it to false"
        )
    jitter = Photometric() if method.strong_views.jitter == "mixed" else None
    return [MaskedConsistencyLoss(**dict(method.masked_consistency), jitter=jitter, average=average)]


def build_negative_keys(method: MethodConfig, num_classes: int) -> NegativeKeys:
    """Selects the negatives. Raises InputError if no rank lies between r_l and r_h."""
    options: dict[str, Any] = {name: None if value == AUTO else value for name, value in method.negative_keys}
    keys = NegativeKeys(**options)
    try:
        keys.ranks(num_classes)
    except ValueError as error:
        raise InputError(f"method.negative_keys: {error}") from error
    return keys


def build_prototypes(
    method: MethodConfig, num_classes: int, embedding_dim: int, total: Reduce | None = None
) -> Prototypes | None:
    """Running class centres for the positives or for denoising; None if neither uses them."""
    if not method.trains_embeddings or (method.prototypes is None and method.denoising is None):
        return None
    return Prototypes(num_classes, embedding_dim, **dict(method.prototypes or ()), reduce=total)


def build_contrast(
    method: MethodConfig,
    num_classes: int,
    embedding_dim: int,
    gather: Gather | None = None,
    processes: int = 1,
    prototypes: Prototypes | None = None,
) -> UnreliableContrast:
    """The contrastive loss and its bank. Raises InputError if the keys of a step do not fit the bank."""
    section = method.contrast
    assert section is not None
    smallest = min(section.bank_size, section.background_bank_size or section.bank_size)
    if section.keys_per_step * processes > smallest:
        shared = f" of each of {processes} processes" if processes > 1 else ""
        raise InputError(
            f"method.contrast.keys_per_step: {section.keys_per_step} keys{shared} do not fit a queue of {smallest} "
            "(method.contrast.bank_size, background_bank_size); lower it"
        )
    return UnreliableContrast(
        num_classes,
        embedding_dim,
        **dict(section),
        negative_keys=build_negative_keys(method, num_classes),
        gather=gather,
        prototypes=prototypes,
        prototype_positives=method.prototypes is not None,
        keep_truth=method.diagnose,
    )


def build_seeding(method: MethodConfig) -> Seeding:
    """Turns image-level tags into labeled pixels."""
    refinement = PixelAdaptiveRefinement(**dict(method.cam.refinement))
    try:
        return Seeding(**{**dict(method.cam), "refinement": refinement})
    except ValueError as error:
        raise InputError(f"method.cam.{error}") from error
