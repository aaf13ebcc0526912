"""Mixing that favours classes the model is not yet confident of (AEL, Hu et al. 2021, arXiv 2110.05474)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from u2pl.pixels.mixing import Mix, Paste, box_sides, inside_boxes, pixels_of
from u2pl.structures import IGNORE_INDEX, AtLeast0, PseudoLabel, Share


class ClassConfidence(nn.Module):
    """AEL's confidence bank: for each class, a running mean of the probability its labeled pixels are given.

    It is saved with the model. The first step that shows a class sets its confidence, which AEL starts at random; until
    then it is 0, so that a class not seen yet is favoured most. A class absent from a step keeps its confidence, which
    the released code lets decay.

    Args:
        num_classes: C.
        decay: of the running mean (paper: 0.999).
        reduce: sums a tensor over processes, so that all hold the same bank.
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
        """Account for a step: the student's logits (B, C, H, W) of labeled images and their (B, H, W) int64 label."""
        of_class = class_pixels(label, len(self))
        probability = logits.float().softmax(dim=1)
        total = torch.stack((probability.where(of_class, 0.0).sum((0, 2, 3)), of_class.sum((0, 2, 3))))
        total = total if self.reduce is None else self.reduce(total)
        mean = total[0] / total[1].clamp(min=1)
        fresh = (total[1] > 0) & mean.isfinite()  # a step that overflowed must not stay in the mean
        running = torch.where(self.seen, mean.lerp(self.value, self.decay), mean)
        self.value.copy_(torch.where(fresh, running, self.value))
        self.seen.logical_or_(fresh)

    def sampling_probability(self, candidates: Tensor | None = None, *, smoothing: float = 1.0) -> Tensor:
        """softmax((1 - confidence) ** smoothing) over the candidates.

        Args:
            candidates: (..., C) bool, the classes that can be drawn; None: all.
            smoothing: below 1 brings confident and other classes together; at 0 all are as likely.

        Returns:
            (C,) float32, or (..., C) as ``candidates``; a row without candidates is all zero.
        """
        weight = (1 - self.value).clamp(min=0).pow(smoothing).exp()
        weight = weight if candidates is None else weight * candidates
        return weight / weight.sum(dim=-1, keepdim=True).clamp(min=1)  # a candidate weighs at least one


@dataclass(frozen=True, slots=True)
class AdaptiveCutMix:
    """CutMix whose box lies around a class of the partner, drawn the more likely the less confident the model is of it.

    The class is one that the partner's pseudo-label holds on more than the share ``min_area`` of the image; padding has
    no class. Along each side of the image, a box longer than the extent of the class's pixels contains it and a shorter
    one lies within it, at a random place. Without such a class it is a random box, as CutMix's.

    AEL takes the extent of one connected component. Here it is that of all pixels of the class, since to find
    components the step would wait for the device. AEL also picks the partner from a bank of images known to hold the
    class; here it is the next image of the batch.

    Args:
        confidence: the bank; it belongs to the method, which saves and updates it.
        area: share of the image that a box covers.
        min_area: share of the image that a class needs (released settings: 0.005 for Cityscapes, 0.03 for VOC).
        resize: a box covers ``area``; false: it has the extent of the class, as in both released settings.
        smoothing: of the draw of classes; at 0 all are as likely.
    """

    confidence: ClassConfidence
    area: Share = 0.5
    min_area: Share = 1e-4
    resize: bool = True
    smoothing: AtLeast0 = 1.0

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
    """Paste all labeled pixels of a few classes onto another image, the less confident classes more often.

    Classes are drawn for each image among all candidates, present in the source or not, so that a frequent class is not
    drawn for want of others. The released code draws them once a step and with replacement, from a source of its own,
    scaled by 0.1 to 2; here the source is the next image of the batch as it was cropped.

    Args:
        confidence: the bank; it belongs to the method, which saves and updates it.
        number: classes drawn for an image (released settings: 3 for Cityscapes, 1 for VOC).
        probability: share of the images that are pasted onto (released: 0.5).
        excluded: classes never pasted, such as the background (released: 0, 1, 2, 8 and 10, which are the road,
            sidewalk, building, vegetation and sky of Cityscapes).
        smoothing: see :meth:`ClassConfidence.sampling_probability` (released: 0.5 for copy-paste, 1 for CutMix).
    """

    confidence: ClassConfidence
    number: int = 3
    probability: float = 0.5
    excluded: tuple[int, ...] = ()
    smoothing: float = 0.5

    def draw(self, label: Tensor) -> Paste:
        """Which pixels of labeled images (B, H, W) to paste; never an ignored one.

        Draws from the global generator of torch, on the device of ``label``, without waiting for the device.
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
        """Paste among labeled images (B, 3, H, W) and labels (B, H, W): each receives from the next of the batch."""
        source = label.roll(-1, dims=0)
        paste = self.draw(source)
        return paste.apply(image, image.roll(-1, dims=0)), paste.apply(label, source)

    def paste(
        self, image: Tensor, pseudo: PseudoLabel, source_image: Tensor, source_label: Tensor
    ) -> tuple[Tensor, PseudoLabel]:
        """Paste onto unlabeled images (B, 3, H, W), which may be mixed already, and their pseudo-labels.

        Image i receives from labeled image i; fewer labeled images are gone through in turn. (The released code pastes
        onto labeled images only.)
        """
        turn = torch.arange(len(image), device=image.device) % len(source_label)
        source_image, source_label = source_image[turn], source_label[turn]
        paste = self.draw(source_label)
        return paste.apply(image, source_image), paste.pseudo_label(pseudo, source_label)


def class_pixels(label: Tensor, num_classes: int) -> Tensor:
    """(B, C, H, W) bool: where a (B, H, W) label names each class; an ignored pixel has none."""
    return label.unsqueeze(1) == torch.arange(num_classes, device=label.device).view(-1, 1, 1)


def draw_classes(probability: Tensor, number: int) -> Tensor:
    """(B, C) bool: N classes a row, drawn without replacement from (B, C); fewer where fewer are possible."""
    # Of clocks that ring after an exponential time of rate p, the first is a draw from p, the next one from the rest.
    time = torch.empty_like(probability).exponential_() / probability
    return (time.argsort(dim=1).argsort(dim=1) < number) & (probability > 0)


def extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last place plus one, each (B, 1, 1) int64, of (B, L) bool; 0 and L where none is occupied."""
    length = occupied.shape[1]
    places = torch.arange(length, device=occupied.device)
    start = torch.where(occupied, places, length).amin(dim=1)
    end = torch.where(occupied, places + 1, 0).amax(dim=1)
    some = end > 0
    return torch.where(some, start, 0).view(-1, 1, 1), torch.where(some, end, length).view(-1, 1, 1)


def place(random: Tensor, start: Tensor, end: Tensor, *, side: Tensor, limit: int) -> Tensor:
    """Where a side begins that contains the places from ``start`` to ``end``, or lies within them if it is shorter."""
    one, other = start.to(side.dtype), end - side
    low, high = torch.minimum(one, other).clamp(min=0), torch.minimum(torch.maximum(one, other), limit - side)
    return low + (high - low) * random
