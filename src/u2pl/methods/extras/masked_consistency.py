"""A further loss: the student labels an image with hidden patches as the teacher labels the whole image."""

from __future__ import annotations

import torch
from torch import Tensor

from u2pl.methods.parts import FurtherLoss, Step
from u2pl.methods.strong_views import DrawsJitter
from u2pl.methods.weighting import ConfidentShare
from u2pl.networks.normalization import IMAGENET_MEAN
from u2pl.pixels.jitter import jittered
from u2pl.pixels.losses import CrossEntropy
from u2pl.pixels.masking import patch_side, visible_patches
from u2pl.structures import IGNORE_INDEX, Jitter, PseudoLabel, Reduce, Share


class MaskedConsistencyLoss(FurtherLoss):
    """Masked image consistency (MIC, Hoyer et al. 2023, arXiv 2212.01322): context has to replace what is hidden.

    Adds ``masked``: the cross-entropy of the student's prediction for an unlabeled image with hidden patches, and the
    teacher's label of the whole image, over all pixels without crop padding. Its weight is the share of these pixels
    whose label is confident (MIC's quality weight), so it starts by itself once the teacher is sure. Labels come from
    the teacher's pass of the step, for the weak images. The student gets the strong view, as MIC jitters the colours.

    The masked images pass alone. Beside the others, their hidden patches would enter the batch statistics of the
    labeled and mixed images. Running statistics leave them out: no network is evaluated on such images.

    Hidden pixels have the mean colour of ImageNet, as crop padding: about zero for the encoder, as in MIC.

    Args:
        patch: side of a patch, as a share of the crop's shorter side (MIC: 64 pixels of 1024, 32 of 512).
        ratio: probability that a patch is hidden.
        threshold: a label is confident if its class has at least this probability.
        jitter: photometric jitter of the images, for strong views without jitter.
        average: averages a tensor over processes, whose pixels then count together; None: there is one.
    """

    fill: Tensor  #: (1, 3, 1, 1) float32

    def __init__(
        self,
        *,
        patch: Share = 0.0625,
        ratio: Share = 0.7,
        threshold: Share = 0.968,
        jitter: DrawsJitter | None = None,
        average: Reduce | None = None,
    ) -> None:
        super().__init__()
        self.patch, self.ratio, self.jitter = patch, ratio, jitter
        self.quality, self.cross_entropy = ConfidentShare(threshold, average), CrossEntropy(average)
        self.register_buffer("fill", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """The losses with ``masked``."""
        assert step.pseudo is not None
        assert step.predict is not None
        _, strong = step.batch.unlabeled_views()
        logits = step.predict(self.masked(strong[0])).logits
        return losses | {"masked": self.loss(logits, step.pseudo)}

    def masked(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) float32, jittered if the part has a jitter, with hidden patches."""
        if self.jitter is not None:
            values = self.jitter.draw(len(image)).values.to(image.device, non_blocking=True)
            image = jittered(image, Jitter(values))
        height, width = image.shape[-2:]
        side = patch_side(height, width, self.patch)
        visible = visible_patches(len(image), height, width, side=side, ratio=self.ratio, device=image.device)
        return torch.where(visible.unsqueeze(1), image, self.fill.to(image.dtype))

    def loss(self, logits: Tensor, pseudo: PseudoLabel) -> Tensor:
        """Weighted mean, a scalar, of the student's (B, C, H, W) logits against the (B, H, W) labels of the teacher."""
        target = pseudo.label.masked_fill(~pseudo.valid, IGNORE_INDEX)
        return self.quality.share(pseudo) * self.cross_entropy(logits, target)
