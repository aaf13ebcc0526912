"""A further view in L_u: the unmixed image with half of its features dropped."""

from __future__ import annotations

import torch
from torch import Tensor

from u2pl.methods.base import PixelLoss
from u2pl.methods.parts import FurtherLoss, Step
from u2pl.methods.weighting import Weighting
from u2pl.structures import IGNORE_INDEX


class FeatureDropoutLoss(FurtherLoss):
    """UniMatch's view with dropped features (Yang et al. 2023, arXiv 2208.09910).

    ``unsupervised`` becomes the mean of its loss and the loss of the mixed views.

    Args:
        weighting, unsupervised_loss: the same as in the method.
    """

    drops_features = True

    def __init__(self, weighting: Weighting, unsupervised_loss: PixelLoss) -> None:
        super().__init__()
        self.weighting, self.unsupervised_loss = weighting, unsupervised_loss

    def forward(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """The losses. ``unsupervised`` is the mean over mixed views and view with dropped features."""
        assert step.pseudo is not None
        pseudo = step.pseudo
        perturbed = step.output.whole.logits[-len(pseudo.label) :]
        nothing = torch.full_like(pseudo.label, IGNORE_INDEX)
        loss = self.weighting(self.unsupervised_loss, perturbed, pseudo, known=nothing, predicted=pseudo)
        return losses | {"unsupervised": (losses["unsupervised"] + loss) / 2}
