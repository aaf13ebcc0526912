"""Mean teacher with strong views: the step of U2PL without its contrastive term."""

from __future__ import annotations

from typing import Any

from torch import nn

from u2pl.methods.u2pl import U2PL


class MeanTeacher(U2PL):
    """CutMix mean teacher (French et al. 2020). Takes the options of :class:`U2PL`, but for the contrast."""

    def __init__(self, network: nn.Module, **options: Any) -> None:
        super().__init__(network, contrast=None, **options)
