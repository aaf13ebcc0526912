"""How a trained network processes an image: whole or in windows, at several scales, mirrored, with an image prior.

The parts below wrap each other. The innermost one calls the network. Most others call the next part on several views of
the image and average its class probabilities. Each takes images (B, 3, H, W) in [0, 1] and returns (B, C, H, W) at
their size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.engine.memory import whole_pixels
from u2pl.pixels.cam import tag_scores

#: Images (B, 3, H, W) -> (B, C, H, W): probabilities, or class scores whose softmax gives them.
Segment = Callable[[Tensor], Tensor]
#: A protocol: a network -> class scores.
Inference = Callable[[nn.Module], Segment]

#: Pixels of an image that every machine can process whole.
SMALL = 1024 * 1024
_WINDOWS_AT_ONCE = 4  # at the usual window size, more cost memory and are not faster


@dataclass(frozen=True)
class Whole:
    """The network's class scores (logits) of the whole image."""

    network: nn.Module

    def __call__(self, image: Tensor) -> Tensor:
        return self.network(image).logits


@dataclass(frozen=True)
class Tagged(Whole):
    """Class scores of the whole image, with the network's classification head: p(c | pixel) p(c is in the image).

    The softmax of the scores renormalises the product. Every image may show the background, class 0. Without a
    classification head the scores stay unchanged.
    """

    def __call__(self, image: Tensor) -> Tensor:
        output = self.network(image)
        if output.activation is None:
            return output.logits
        shown = F.pad(F.logsigmoid(tag_scores(output.activation)), (1, 0))
        return output.logits.float() + shown[:, :, None, None]


@dataclass(frozen=True)
class Informed:
    """Class scores of a segmentation, with an image prior: p(c | pixel) p(c is in the image).

    Args:
        segment: class scores.
        prior: (B, 3, H, W) -> (B, C), log p(c is in the image); 0 for classes without a prior.
        power: exponent of the prior.
    """

    segment: Segment
    prior: Callable[[Tensor], Tensor]
    power: float = 1.0

    def __call__(self, image: Tensor) -> Tensor:
        return self.segment(image).float() + self.power * self.prior(image)[:, :, None, None]


@dataclass(frozen=True)
class Softmax:
    """Class scores -> probabilities, float32."""

    segment: Segment

    def __call__(self, image: Tensor) -> Tensor:
        return self.segment(image).float().softmax(dim=1)


@dataclass(frozen=True)
class Sliding:
    """Probabilities of overlapping windows, averaged over the windows that cover a pixel.

    A window is never larger than the image, so nothing is padded. An image that fits into one window is processed
    whole.

    Args:
        segment: probabilities of a batch of windows.
        window, overlap: see :func:`window_starts`.
    """

    segment: Segment
    window: int = 769
    overlap: float = 0.33

    def __call__(self, image: Tensor) -> Tensor:
        (height, width), count = image.shape[-2:], len(image)
        h, w = min(height, self.window), min(width, self.window)
        rows, columns = (window_starts(side, window=self.window, overlap=self.overlap) for side in (height, width))
        corners = [(top, left) for top in rows for left in columns]
        total, cover = None, image.new_zeros(height, width, dtype=torch.float32)
        for first in range(0, len(corners), _WINDOWS_AT_ONCE):
            some = corners[first : first + _WINDOWS_AT_ONCE]
            seen = self.segment(torch.cat([image[..., y : y + h, x : x + w] for y, x in some]))
            if total is None:
                total = seen.new_zeros(count, seen.shape[1], height, width, dtype=torch.float32)
            for (y, x), probability in zip(some, seen.split(count), strict=True):
                total[..., y : y + h, x : x + w] += probability
                cover[y : y + h, x : x + w] += 1
        assert total is not None  # every image has a window
        return total.div_(cover)


def window_starts(side: int, *, window: int, overlap: float) -> list[int]:
    """Where the windows along one side of an image begin.

    They are ``ceil(window * (1 - overlap))`` pixels apart, as in the released code of U2PL (Wang et al. 2022, arXiv
    2203.03884). The last window is moved inwards to end at the border. If the window is at least as long as the side,
    there is only one.
    """
    # Rounded first: 10 * (1 - 0.7) is a little more than 3.
    stride = max(1, math.ceil(round(window * (1 - overlap), 6)))
    last = max(0, side - window)
    return [*range(0, last, stride), last]


@dataclass(frozen=True)
class Flipped:
    """Probabilities of the image and of its mirror image, averaged."""

    segment: Segment

    def __call__(self, image: Tensor) -> Tensor:
        mirrored = self.segment(image.flip(-1)).flip(-1)
        return mirrored.add_(self.segment(image)).div_(2)


@dataclass(frozen=True)
class MultiScale:
    """Probabilities of the image at several sizes, resized back and averaged.

    Images are resized bilinearly with antialiasing, as in training. Probabilities are resized bilinearly.
    """

    segment: Segment
    scales: Sequence[float] = (1.0,)

    def __call__(self, image: Tensor) -> Tensor:
        size, total = list(image.shape[-2:]), None
        for scale in self.scales:
            probability = self.segment(_resized(image, scale))
            if list(probability.shape[-2:]) != size:
                probability = F.interpolate(probability, size=size, mode="bilinear", align_corners=False)
            total = probability if total is None else total.add_(probability)
        assert total is not None
        return total.div_(len(self.scales))


def _resized(image: Tensor, scale: float) -> Tensor:
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    if size == list(image.shape[-2:]):
        return image
    return F.interpolate(image, size=size, mode="bilinear", antialias=True)


@dataclass(frozen=True)
class Log:
    """Probabilities -> class scores with these probabilities as their softmax."""

    segment: Segment

    def __call__(self, image: Tensor) -> Tensor:
        probability = self.segment(image)
        return probability.clamp_(min=torch.finfo(probability.dtype).tiny).log_()


@dataclass(frozen=True)
class Sized:
    """Class scores of the whole image, or through windows where it is too large for the memory."""

    whole: Segment
    windows: Segment
    network: nn.Module

    @cached_property
    def largest(self) -> int:
        """Pixels of the largest image that is processed whole."""
        return max(SMALL, whole_pixels(self.network, next(self.network.parameters()).device))

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        # Most images are small: the largest size is not worked out for them.
        fits = height * width <= SMALL or height * width <= self.largest
        return self.whole(image) if fits else self.windows(image)


def inference(
    network: nn.Module,
    *,
    protocol: Literal["auto", "whole", "sliding"] = "whole",
    window: int = 769,
    overlap: float = 0.33,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    tags: bool = True,
    image_prior: float = 1.0,
    prior: Callable[[Tensor], Tensor] | None = None,
) -> Segment:
    """Combine the parts: images (B, 3, H, W) in [0, 1] -> class scores (B, C, H, W), whose softmax is the prediction.

    With the defaults, a network without a classification head and without a prior returns its logits unchanged.

    Args:
        network: returns a :class:`~u2pl.structures.SegmentationOutput`; in evaluation mode.
        protocol: the image whole, or through sliding windows; auto: whole, unless it is too large for the memory.
        window: side of a window, pixels of the resized image.
        overlap: smallest share of a window that the next one covers again (to whole pixels), in [0, 1).
        scales: factors of the image's size; positive.
        flip: also process the mirror image at each scale.
        tags: use the network's classification head, if it has one; see :class:`Tagged`.
        image_prior: exponent of the prior; 0: no prior.
        prior: the image prior; see :class:`Informed`.

    Raises ValueError for invalid values.
    """
    if protocol not in ("auto", "whole", "sliding") or window < 1 or not 0 <= overlap < 1:
        raise ValueError(f"protocol={protocol!r}, window={window}, overlap={overlap} is no way to see an image")
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"scales={list(scales)}: one or more positive numbers are needed")
    if protocol == "auto":
        parts = partial(
            inference,
            network,
            window=window,
            overlap=overlap,
            scales=scales,
            flip=flip,
            tags=tags,
            image_prior=image_prior,
            prior=prior,
        )
        return Sized(parts(protocol="whole"), parts(protocol="sliding"), network)
    scores: Segment = Tagged(network) if tags else Whole(network)
    if protocol == "sliding" or flip or any(scale != 1 for scale in scales):
        segment: Segment = Softmax(scores)
        if protocol == "sliding":
            segment = Sliding(segment, window=window, overlap=overlap)
        if flip:
            segment = Flipped(segment)
        if any(scale != 1 for scale in scales):
            segment = MultiScale(segment, scales=scales)
        scores = Log(segment)
    return scores if prior is None or image_prior == 0 else Informed(scores, prior, image_prior)
