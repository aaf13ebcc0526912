"""Configuration -> method, with its contrast, its bank and its mixing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from u2pl.config.fields import AUTO
from u2pl.config.schema import MethodConfig
from u2pl.data.photometric import Photometric
from u2pl.errors import InputError
from u2pl.methods import U2PL, FixMatch, MeanTeacher, Schedule, Supervised, UniMatch, WeakU2PL
from u2pl.methods.base import Method, PixelLoss
from u2pl.methods.seeding import Seeding
from u2pl.methods.views import Jitter
from u2pl.methods.weighting import ConfidentShare, LambdaU, ReliableShare, Weighting
from u2pl.pixels import (
    AdaptiveCopyPaste,
    AdaptiveCutMix,
    ClassConfidence,
    ClassMix,
    CrossDomainClassMix,
    CutMix,
    CutOut,
    DistributionAlignment,
    Mixing,
    NegativeLearning,
    NoMixing,
    Prototypes,
    PrototypicalDenoising,
    Reliability,
    UnreliableContrast,
)
from u2pl.pixels.cam import PixelAdaptiveRefinement
from u2pl.pixels.contrast import Gather, default_low_rank
from u2pl.pixels.losses import (
    BalancedCrossEntropy,
    OhemCrossEntropy,
    SymmetricCrossEntropy,
    cross_entropy,
    rarity_weight,
)


def build_method(
    method: MethodConfig,
    network: nn.Module,
    *,
    num_classes: int,
    embedding_dim: int,
    class_share: Tensor | None = None,
    gather: Gather | None = None,
    total: Callable[[Tensor], Tensor] | None = None,
    processes: int = 1,
) -> Method:
    """The method around a freshly built student. ``gather`` shares the keys of so many processes, ``total`` sums.

    ``class_share`` (C,) is that of labeled pixels, by which a teacher of two balanced losses is corrected.
    """
    loss = build_supervised_loss(method)
    if method.name == "supervised":
        return Supervised(supervised_loss=loss)
    mixing = build_mixing(method, num_classes, total)
    if method.name in ("fixmatch", "unimatch"):
        if isinstance(mixing, AdaptiveCutMix):
            raise InputError(f"method.mixing: ael needs mean_teacher or u2pl, not {method.name}; use cutmix")
        consistency = FixMatch if method.name == "fixmatch" else UniMatch
        return consistency(threshold=method.threshold, mixing=mixing, jitter=build_jitter(method), supervised_loss=loss)
    options: dict[str, Any] = {
        "mixing": mixing,
        "jitter": build_jitter(method),
        "copy_paste": AdaptiveCopyPaste(mixing.confidence) if isinstance(mixing, AdaptiveCutMix) else None,
        "reliability": Reliability(
            method.alpha, method.dynamic_partition, method.min_confidence, class_wise=method.class_wise
        ),
        "schedule": Schedule(warmup=method.warmup, ramp=method.ramp),
        "weighting": build_weighting(method),
        "ema_decay": method.ema_decay,
        "feature_dropout": method.feature_dropout,
        "negatives_from": method.negatives_from,
        "teacher_passes": method.teacher_passes,
        "supervised_loss": loss,
        "unsupervised_loss": build_unsupervised_loss(method),
        "class_weight": None if class_share is None else rarity_weight(class_share),
        "alignment": DistributionAlignment(num_classes, reduce=total) if method.align else None,
        "negative_learning": NegativeLearning(*ranks(method, num_classes)) if method.negative_weight else None,
    }
    contrast = None
    if contrasts(method):
        contrast = build_contrast(method, num_classes, embedding_dim, gather, processes, total)
        if method.denoise and contrast.prototypes is not None:
            options["denoising"] = PrototypicalDenoising(contrast.prototypes, method.denoise_temperature)
    if uses_tags(method):
        return WeakU2PL(network, contrast=contrast, **_weak_options(method), **options)
    return MeanTeacher(network, **options) if contrast is None else U2PL(network, contrast=contrast, **options)


def build_supervised_loss(method: MethodConfig) -> PixelLoss:
    """L_s."""
    if method.loss == "ohem":
        return OhemCrossEntropy(threshold=method.ohem_threshold, min_kept=method.ohem_min_kept)
    return BalancedCrossEntropy() if method.loss == "balanced" else cross_entropy


def build_unsupervised_loss(method: MethodConfig) -> PixelLoss:
    """L_u, before its weight."""
    if method.symmetric and method.unsupervised_loss == "balanced":
        raise InputError("method.symmetric: goes with method.unsupervised_loss=cross_entropy, not with balanced")
    if method.symmetric:
        return SymmetricCrossEntropy(method.symmetric)
    return BalancedCrossEntropy() if method.unsupervised_loss == "balanced" else cross_entropy


def build_weighting(method: MethodConfig) -> Weighting:
    """How much pseudo-labels weigh."""
    if method.unsupervised_weighting == "confident_share":
        return ConfidentShare(method.threshold)
    if method.unsupervised_weighting == "reliable_share":
        return ReliableShare()
    return LambdaU(math.inf if method.max_lambda_u is None else method.max_lambda_u)


def _weak_options(method: MethodConfig) -> dict[str, Any]:
    if method.mixing in ("ael", "cross_domain"):  # a pasted class would not be among the tags
        raise InputError(f"method.mixing: {method.mixing} pastes labels, which weak_u2pl has none of; use cutmix")
    return {"seeding": build_seeding(method), "cam_warmup": method.cam_warmup, "tag_negatives": method.tag_negatives}


def build_seeding(method: MethodConfig) -> Seeding:
    """How image-level tags become labeled pixels."""
    if method.cam_low > method.cam_high:
        raise InputError(f"method.cam_low: {method.cam_low} is above method.cam_high, {method.cam_high}; lower it")
    return Seeding(
        scales=method.cam_scales,
        flip=method.cam_flip,
        stride=method.cam_stride,
        refinement=PixelAdaptiveRefinement(method.pamr_iterations, method.pamr_dilations),
        high=method.cam_high,
        low=method.cam_low,
        share=method.seed_share,
    )


def build_mixing(method: MethodConfig, num_classes: int, total: Callable[[Tensor], Tensor] | None = None) -> Mixing:
    """How strong views are mixed."""
    if method.mixing == "ael":
        return AdaptiveCutMix(ClassConfidence(num_classes, reduce=total))
    if method.mixing == "classmix":
        return ClassMix(num_classes)
    if method.mixing == "cross_domain":
        return CrossDomainClassMix(num_classes)
    return {"cutmix": CutMix, "cutout": CutOut, "none": NoMixing}[method.mixing]()


def build_jitter(method: MethodConfig) -> Jitter | None:
    """What jitters mixed images; None where strong views are jittered before they are mixed, or not at all."""
    return Photometric() if method.strong_view and method.jitter == "mixed" else None


def build_contrast(
    method: MethodConfig,
    num_classes: int,
    embedding_dim: int,
    gather: Gather | None = None,
    processes: int = 1,
    total: Callable[[Tensor], Tensor] | None = None,
) -> UnreliableContrast:
    """The contrastive term, its bank and its prototypes."""
    low_rank, high_rank = ranks(method, num_classes)
    sizes = [method.bank_size] * num_classes
    sizes[0] = method.background_bank_size or method.bank_size
    if method.keys_per_step * processes > min(sizes):
        shared = f" of each of {processes} processes" if processes > 1 else ""
        raise InputError(
            f"method.keys_per_step: {method.keys_per_step}{shared} are more than the {min(sizes)} of method.bank_size "
            "or background_bank_size; lower it"
        )
    prototypes = Prototypes(num_classes, embedding_dim, reduce=total) if method.prototypes or method.denoise else None
    return UnreliableContrast(
        num_classes,
        embedding_dim,
        low_rank=low_rank,
        high_rank=high_rank,
        min_probability=method.min_probability,
        anchors=method.anchors,
        negatives=method.negatives,
        temperature=method.temperature,
        bank_size=sizes,
        keys_per_step=method.keys_per_step,
        gather=gather,
        prototypes=prototypes,
        prototype_positives=method.prototypes,
        keep_truth=method.diagnose,
    )


def contrasts(method: MethodConfig) -> bool:
    """Whether the method has a contrastive term, and so trains embeddings."""
    return method.name in ("u2pl", "weak_u2pl") and method.contrast


def balances(method: MethodConfig) -> bool:
    """Whether a teacher learns from labels and from pseudo-labels which weigh more where they are rare."""
    teacher = method.name in ("mean_teacher", "u2pl", "weak_u2pl")
    return teacher and method.loss == method.unsupervised_loss == "balanced"


def uses_tags(method: MethodConfig) -> bool:
    """Whether the method learns from image-level tags, and so has a classification head."""
    return method.name == "weak_u2pl"


def uses_ranks(method: MethodConfig) -> bool:
    """Whether a loss asks which classes a pixel is sure not to be."""
    return contrasts(method) or (method.name in ("mean_teacher", "u2pl", "weak_u2pl") and method.negative_weight > 0)


def strong_views(method: MethodConfig) -> int:
    """Strong views of each unlabeled image: UniMatch is defined by two."""
    return {"fixmatch": 1, "unimatch": 2}.get(method.name, method.views)


def default_ranks(num_classes: int) -> tuple[int, int]:
    """r_l and r_h for so many classes."""
    return default_low_rank(num_classes), min(20, num_classes)


def ranks(method: MethodConfig, num_classes: int) -> tuple[int, int]:
    """r_l and r_h. Raises InputError when no rank lies between them: what unreliable pixels teach would be zero."""
    low, high = 1, num_classes
    if method.rank_threshold:
        low, high = default_ranks(num_classes)
        low = low if method.low_rank in (None, AUTO) else method.low_rank
        high = high if method.high_rank in (None, AUTO) else method.high_rank
    if not 0 < low < high <= num_classes:
        raise InputError(
            f"method.low_rank and method.high_rank: {low} and {high} leave no rank between them; "
            f"needed: 0 < low_rank < high_rank <= {num_classes}, the number of classes"
        )
    return low, high
