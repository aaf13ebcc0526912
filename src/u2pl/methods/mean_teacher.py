"""Mean teacher with strong views: U2PL's step without the contrastive loss."""

from __future__ import annotations

from typing import Any

from u2pl.methods.ema import EmaTeacher
from u2pl.methods.u2pl import U2PL


class MeanTeacher(U2PL):
    """CutMix mean teacher (French et al. 2020). Takes the arguments of :class:`U2PL` except ``contrast``."""

    has_contrast = False

    def __init__(self, teacher: EmaTeacher, **parts: Any) -> None:
        super().__init__(teacher, contrast=None, **parts)
