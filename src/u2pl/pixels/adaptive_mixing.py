"""Mixing that prefers classes with low confidence (AEL, Hu et al. 2021, arXiv 2110.05474)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn

from u2pl.pixels.mixing import Mix, Paste, box_sides, inside_boxes, pixels_of
from u2pl.structures import IGNORE_INDEX, PseudoLabel, Share


class ClassConfidence(nn.Module):
    """AEL's confidence bank: for each class, a running mean of the student's probability for its labeled pixels.

    The bank is saved with the model. The first step that contains a class sets its confidence (AEL starts with a random
    value). Until then the confidence is 0, so the class is the most likely to be drawn. A class that is absent from a
    step keeps its confidence (the released code lets it decay).

    Args:
        num_classes: C.
        decay: decay of the running mean (paper: 0.999).
        reduce: sums a tensor over processes, so that all have the same bank.
    """

    value: Tensor  #: (C,) float32 in [0, 1]
    seen: Tensor  #: (C,) bool

    def __init__(
        self, num_classes: int, *, decay: float = 0.999, reduce: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.decay, self.reduce = decay, reduce
        self.register_buffer("value", torch.zeros(num_classes))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.value)

    @torch.no_grad()
    def update(self, logits: Tensor, label: Tensor) -> None:
        """Update with the student's logits (B, C, H, W) for labeled images and their (B, H, W) int64 labels."""
        of_class = class_pixels(label, len(self))
        probability = logits.float().softmax(dim=1)
        total = torch.stack((probability.where(of_class, 0.0).sum((0, 2, 3)), of_class.sum((0, 2, 3))))
        total = total if self.reduce is None else self.reduce(total)
        mean = total[0] / total[1].clamp(min=1)
        fresh = (total[1] > 0) & mean.isfinite()  # a step that overflowed must not enter the mean
        running = torch.where(self.seen, mean.lerp(self.value, self.decay), mean)
        self.value.copy_(torch.where(fresh, running, self.value))
        self.seen.logical_or_(fresh)

    def sampling_probability(self, candidates: Tensor | None = None, *, smoothing: float = 1.0) -> Tensor:
        """The probability of each class in a draw: softmax((1 - confidence) ** smoothing) over the candidates.

        Args:
            candidates: (..., C) bool, classes that can be drawn; None: all classes.
            smoothing: below 1 it makes the probabilities more equal; at 0 they are equal.

        Returns:
            (C,) float32, or (..., C) like ``candidates``. A row without candidates is all zero.
        """
        weight = (1 - self.value).clamp(min=0).pow(smoothing).exp()
        weight = weight if candidates is None else weight * candidates
        return weight / weight.sum(dim=-1, keepdim=True).clamp(min=1)  # the weight of a candidate is at least 1


@dataclass(frozen=True, slots=True)
class AdaptiveCutMix:
    """CutMix with its box around a class of the partner. Classes with low confidence are drawn more often.

    The class must cover more than the share ``min_area`` of the image in the partner's pseudo-label. Padding has no
    class. Along each side of the image, a box longer than the extent of the class contains that extent, and a shorter
    box lies within it. The exact place is random. If no class is large enough, the box is random, as in CutMix.

    AEL uses the extent of one connected component. Here it is the extent of all pixels of the class, because a search
    for components would make the step wait for the device. AEL also picks the partner from a bank of images that
    contain the class. Here the partner is the next image of the batch.

    Args:
        confidence: the confidence bank. It belongs to the method, which saves and updates it.
        area: share of the image that the box covers.
        min_area: a class must cover more than this share of the image (released: 0.005 for Cityscapes, 0.03 for VOC).
        resize: give the box the share ``area``; false: the extent of the class, as in both released settings.
        smoothing: exponent of (1 - confidence) when a class is drawn; at 0 all classes are equally likely.
    """

    confidence: ClassConfidence
    area: Share = 0.5
    min_area: Share = 1e-4
    resize: bool = True
    smoothing: Annotated[float, Interval(ge=0, le=100)] = 1.0

    def draw(self, pseudo: PseudoLabel, label: Tensor | None = None) -> Mix:
        height, width = pseudo.label.shape[-2:]
        partner = pseudo.label.where(pseudo.valid, torch.full_like(pseudo.label, IGNORE_INDEX)).roll(-1, dims=0)
        share = class_pixels(partner, len(self.confidence)).sum((2, 3)) / (height * width)
        probability = self.confidence.sampling_probability(share > self.min_area, smoothing=self.smoothing)
        chosen = draw_classes(probability, 1)
        target = pixels_of(chosen, partner)
        top, bottom = extent(target.any(dim=2))
        left, right = extent(target.any(dim=1))

        random = torch.rand(3, len(partner), 1, 1, device=partner.device)
        sides = box_sides(random[0], height, width, area=self.area)
        if not self.resize:
            found = chosen.any(dim=1).view(-1, 1, 1)
            sides = (torch.where(found, bottom - top, sides[0]), torch.where(found, right - left, sides[1]))
        top = place(random[2], top, bottom, side=sides[0], limit=height)
        left = place(random[1], left, right, side=sides[1], limit=width)
        return Mix(~inside_boxes(top, left, sides, height=height, width=width))


@dataclass(frozen=True, slots=True)
class AdaptiveCopyPaste:
    """Pastes all labeled pixels of a few classes onto another image. Classes with low confidence are drawn more often.

    Classes are drawn for each image from all candidates, whether the source contains them or not. Otherwise frequent
    classes would be drawn only because no other class is present. The released code draws classes once a step and with
    replacement. Its source is a separate image, scaled by 0.1 to 2. Here the source is the next image of the batch, as
    cropped.

    Args:
        confidence: the confidence bank. It belongs to the method, which saves and updates it.
        number: classes drawn for an image (released: 3 for Cityscapes, 1 for VOC).
        probability: share of the images that receive pixels (released: 0.5).
        excluded: classes that are never pasted, such as the background (released: 0, 1, 2, 8 and 10, which are road,
            sidewalk, building, vegetation and sky in Cityscapes).
        smoothing: see :meth:`ClassConfidence.sampling_probability` (released: 0.5 for copy-paste, 1 for CutMix).
    """

    confidence: ClassConfidence
    number: int = 3
    probability: float = 0.5
    excluded: tuple[int, ...] = ()
    smoothing: float = 0.5

    def draw(self, label: Tensor) -> Paste:
        """Draw the pixels to paste from images with a (B, H, W) label. Ignored pixels are never pasted.

        Uses torch's global generator on the device of ``label``, without waiting for the device.
        """
        classes = torch.arange(len(self.confidence), device=label.device)
        candidates = torch.ones_like(classes, dtype=torch.bool)
        for index in self.excluded:
            candidates &= classes != index
        probability = self.confidence.sampling_probability(candidates, smoothing=self.smoothing)
        chosen = draw_classes(probability.expand(len(label), -1), self.number)
        pasted_onto = torch.rand(len(label), 1, device=label.device) < self.probability
        return Paste(pixels_of(chosen & pasted_onto, label))

    def apply(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Paste between labeled images (B, 3, H, W) and labels (B, H, W). Each image receives from the next one."""
        source = label.roll(-1, dims=0)
        paste = self.draw(source)
        return paste.apply(image, image.roll(-1, dims=0)), paste.apply(label, source)

    def paste(
        self, image: Tensor, pseudo: PseudoLabel, source_image: Tensor, source_label: Tensor
    ) -> tuple[Tensor, PseudoLabel]:
        """Paste onto unlabeled images (B, 3, H, W), mixed or not, and onto their pseudo-labels.

        Image i receives from labeled image i. If there are fewer labeled images, they repeat. (The released code pastes
        onto labeled images only.)
        """
        turn = torch.arange(len(image), device=image.device) % len(source_label)
        source_image, source_label = source_image[turn], source_label[turn]
        paste = self.draw(source_label)
        return paste.apply(image, source_image), paste.pseudo_label(pseudo, source_label)


def class_pixels(label: Tensor, num_classes: int) -> Tensor:
    """(B, C, H, W) bool: true where a (B, H, W) label has the class. An ignored pixel has no class."""
    return label.unsqueeze(1) == torch.arange(num_classes, device=label.device).view(-1, 1, 1)


def draw_classes(probability: Tensor, number: int) -> Tensor:
    """(B, C) bool: ``number`` classes per row, or all possible ones, drawn without replacement from (B, C)."""
    # Exponential times with rates p: the shortest one is a draw from p, the next one a draw from the rest.
    time = torch.empty_like(probability).exponential_() / probability
    return (time.argsort(dim=1).argsort(dim=1) < number) & (probability > 0)


def extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """The first occupied place and the last one plus 1, each (B, 1, 1) int64, of (B, L) bool; 0 and L without any."""
    length = occupied.shape[1]
    places = torch.arange(length, device=occupied.device)
    start = torch.where(occupied, places, length).amin(dim=1)
    end = torch.where(occupied, places + 1, 0).amax(dim=1)
    some = end > 0
    return torch.where(some, start, 0).view(-1, 1, 1), torch.where(some, end, length).view(-1, 1, 1)


def place(random: Tensor, start: Tensor, end: Tensor, *, side: Tensor, limit: int) -> Tensor:
    """Where a side begins so that it contains ``start`` to ``end`` or, if it is shorter, lies between them."""
    one, other = start.to(side.dtype), end - side
    low, high = torch.minimum(one, other).clamp(min=0), torch.minimum(torch.maximum(one, other), limit - side)
    return low + (high - low) * random
