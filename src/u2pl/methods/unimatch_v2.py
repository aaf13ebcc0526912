"""UniMatch V2: two strong views with complementary channels, labeled by an averaged teacher (arXiv 2410.10777)."""

from __future__ import annotations

from typing import Any

from u2pl.methods.ema import EmaTeacher
from u2pl.methods.mean_teacher import MeanTeacher
from u2pl.methods.strong_views import StrongViews
from u2pl.methods.weighting import ReliableShare, Weighting
from u2pl.pixels.reliability import ConfidenceThreshold


class UniMatchV2(MeanTeacher):
    """UniMatch V2 (Yang et al. 2025) is a mean teacher with other parts.

    The teacher labels the weak view. The student learns these labels, where they are confident, from two mixed strong
    views, whose features lack complementary halves of the channels. Labels and pseudo-labels train from the first step.
    The released code halves the sum of L_s and L_u; here the learning rate can do that. Its momentum is 0.996.

    Args:
        teacher: the moving average of the student.
        threshold: smallest confidence of a pseudo-label that trains.
        mix: makes the strong views; default: CutMix with complementary channels.
        weighting: weight of pseudo-labels; default: the share of reliable pixels.
        parts: further arguments of :class:`~u2pl.methods.u2pl.U2PL`, such as ``refiners``.
    """

    has_threshold = True
    strong_views = 2

    def __init__(
        self,
        teacher: EmaTeacher,
        *,
        threshold: float = 0.95,
        mix: StrongViews | None = None,
        weighting: Weighting = ReliableShare(),
        **parts: Any,
    ) -> None:
        mix = StrongViews(complementary=True) if mix is None else mix
        super().__init__(teacher, mix=mix, weighting=weighting, reliability=ConfidenceThreshold(threshold), **parts)
