"""Which method uses which key: what makes a method this method, and what could help others, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from u2pl.config.method import MethodConfig

Uses = Callable[[MethodConfig], bool]


def _partitions(method: MethodConfig) -> bool:
    return method.kind.has_teacher and not method.kind.has_threshold


#: What could help other methods as well, but is built for these only.
HELP: Mapping[str, Uses] = {
    "method.feature_dropout": _partitions,
    "method.complementary_dropout": _partitions,
    "method.loss_weights.negative": _partitions,
    "method.masked_consistency": lambda method: method.kind.has_teacher,
    "method.strong_views.number": lambda method: method.kind.strong_views is None,
}
#: What makes a method this method.
OWN: Mapping[str, Uses] = {
    "method.reliability.": _partitions,
    "method.schedule.": _partitions,
    "method.weighting.": _partitions,
    "method.teacher.": lambda method: method.kind.has_teacher,
    "method.threshold": lambda method: method.kind.has_threshold,
    "method.contrast": lambda method: method.trains_embeddings,
    "method.negative_keys.": lambda method: method.uses_negative_keys,
    "method.loss_weights.contrastive": lambda method: method.trains_embeddings,
    "method.prototypes": lambda method: method.trains_embeddings,
    "method.denoising": lambda method: method.trains_embeddings,
    "method.cam.": lambda method: method.kind.uses_tags,
    "method.loss_weights.classification": lambda method: method.kind.uses_tags,
    "method.": lambda method: method.kind.semi_supervised,
}


def uses(key: str, method: MethodConfig) -> bool:
    """Whether a key, such as `method.schedule.warmup`, changes the training of a method."""
    if key.startswith(("method.supervised_loss.", "method.loss_weights.auxiliary")) or not key.startswith("method."):
        return True
    return next(use for start, use in (*HELP.items(), *OWN.items()) if key.startswith(start))(method)
