"""Which classes an image probably shows."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from u2pl.networks.image_classifier import ImageClassifier
from u2pl.networks.image_encoder import SIDE

_AS_LIKELY = 0.5  # as the most likely class: less likely classes are no tags


@torch.no_grad()
def tags_of(image: Tensor, shown: tuple[int, ...], classifier: ImageClassifier | None) -> tuple[int, ...]:
    """Classes to propose as tags, in their order.

    Of the classes that the image prior tells apart, these are the most likely one and those at least half as likely.
    The others, or all without a prior, are the classes that the mask shows.

    Args:
        image: (3, H, W) uint8 RGB.
        shown: classes of the predicted mask.
        classifier: of the image prior, if the run has one.
    """
    if classifier is None:
        return tuple(sorted(shown))
    pixels = image[None].to(classifier.weight.device).float().div(255)
    scale = 2 * SIDE / min(image.shape[-2:])  # the encoder shrinks the rest
    if scale < 1:
        size = [max(1, round(scale * side)) for side in image.shape[-2:]]
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    told = classifier.told.cpu()
    likely = (classifier(pixels)[0].cpu() >= math.log(_AS_LIKELY)) & told
    return tuple(index for index in range(len(told)) if likely[index] or (index in shown and not told[index]))
