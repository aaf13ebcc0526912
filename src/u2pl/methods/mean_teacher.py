"""Mean teacher with strong views: the step of U2PL without its contrastive term."""

from __future__ import annotations

from typing import Any

from u2pl.methods.ema import EmaTeacher
from u2pl.methods.u2pl import U2PL


class MeanTeacher(U2PL):
    """CutMix mean teacher (French et al. 2020). Takes the parts of :class:`U2PL`, but for the contrast."""

    has_contrast = False

    def __init__(self, teacher: EmaTeacher, **parts: Any) -> None:
        super().__init__(teacher, contrast=None, **parts)
