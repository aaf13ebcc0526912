"""Plain typed containers that the parts of the package exchange. They compute no more than a softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor

# Types of the keyword arguments of parts. A configuration checks its keys by the same annotations. The upper bounds are
# far above what a run can use: they refuse slips of the keyboard, and numbers that overflow.
Share = Annotated[float, Interval(ge=0, le=1)]
Positive = Annotated[int, Interval(gt=0, le=1_000_000_000)]
Count = Annotated[int, Interval(ge=0, le=1_000_000_000)]
Width = Annotated[int, Interval(gt=0, le=65_536)]  #: channels of a layer, or items that meet all others
Above0 = Annotated[float, Interval(gt=0, le=1e6)]
AtLeast0 = Annotated[float, Interval(ge=0, le=1e6)]
Temperature = Annotated[float, Interval(ge=1e-3, le=1e3)]  #: of a softmax
Factor = Annotated[float, Interval(ge=0.01, le=4)]  #: of the size of an image

#: Combines a tensor with those of all other processes, elementwise: their sum or their average.
Reduce = Callable[[Tensor], Tensor]

#: Pixels with this label neither train nor count in evaluation.
IGNORE_INDEX = 255


@dataclass(frozen=True, slots=True)
class Batch:
    """The data of one training step: labeled crops, and two views of unlabeled crops.

    Images are float32 RGB in [0, 1]; the network normalises them. ``weak``, ``strong`` and ``strong_2`` show the same
    crop and differ only in photometric jitter.
    """

    image: Tensor  #: (B_l, 3, H, W) float32, labeled crops
    label: Tensor  #: (B_l, H, W) int64, class index or IGNORE_INDEX (crop padding included)
    weak: Tensor | None = None  #: (B_u, 3, H, W) float32
    strong: Tensor | None = None  #: (B_u, 3, H, W) float32
    valid: Tensor | None = None  #: (B_u, H, W) bool, False on crop padding
    strong_2: Tensor | None = None  #: (B_u, 3, H, W) float32, with its own jitter; for methods with two strong views
    #: (B_u, H, W) int64, true classes of the unlabeled crops, IGNORE_INDEX where unknown. None unless the run is
    #: diagnosed: it only measures training, and no loss may depend on it.
    truth: Tensor | None = None
    #: (B_u, C) bool, classes that an unlabeled image may show, always with class 0 (background). All classes if its
    #: tags are unknown. None unless images come with tags.
    tags: Tensor | None = None
    tagged: Tensor | None = None  #: (B_u,) bool, whether the tags of an image are known; None if ``tags`` is
    #: (B_u, C) float32, the image prior, which is added to the logits of an unlabeled image; None without one
    prior: Tensor | None = None
    #: Whether the weak images are also the last labeled images, with seeds as their labels.
    seeded: bool = False

    def unlabeled_views(self) -> tuple[Tensor, list[Tensor]]:
        """The weak view, and one or two strong views. Raises ValueError if the batch has no unlabeled images."""
        if self.weak is None or self.strong is None:
            raise ValueError("a semi-supervised step needs a batch with unlabeled images")
        return self.weak, [view for view in (self.strong, self.strong_2) if view is not None]

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """The same batch on another device (arguments of :meth:`torch.Tensor.to`)."""
        return _each_tensor(self, lambda tensor: tensor.to(*args, **kwargs))


@dataclass(frozen=True, slots=True)
class Crops:
    """What becomes a :class:`Batch`: its crops as bytes, and numbers in place of jittered images.

    A loader sends and copies to a device a quarter of the bytes or less. On the device,
    :func:`u2pl.pixels.views.views_of` makes the batch.
    """

    image: Tensor  #: (B_l, 3, H, W) uint8
    label: Tensor  #: (B_l, H, W) uint8, class index or IGNORE_INDEX (crop padding included)
    unlabeled: Tensor | None = None  #: (B_u, 3, H, W) uint8, the weak views
    valid: Tensor | None = None  #: (B_u, H, W) bool, False on crop padding
    truth: Tensor | None = None  #: (B_u, H, W) uint8, see :class:`Batch`
    strong_views: int = 1  #: of each unlabeled image, 1 or 2
    image_jitter: Tensor | None = None  #: (B_l, P) float32, see :class:`Jitter`; None: no jitter
    strong_jitter: Tensor | None = None  #: (strong_views * B_u, P) float32, by view; None: as the weak views
    tags: Tensor | None = None  #: (B_u, C) bool, see :class:`Batch`
    tagged: Tensor | None = None  #: (B_u,) bool
    prior: Tensor | None = None  #: (B_u, C) float32

    def to(self, *args: Any, **kwargs: Any) -> Crops:
        """The same crops on another device (arguments of :meth:`torch.Tensor.to`); pinned memory is not waited for."""
        return _each_tensor(self, lambda tensor: tensor.to(*args, **{"non_blocking": tensor.is_pinned(), **kwargs}))

    def pin_memory(self) -> Crops:
        """The same crops in page-locked memory (called by the data loader)."""
        return _each_tensor(self, lambda tensor: tensor.pin_memory())


@dataclass(frozen=True, slots=True)
class Jitter:
    """Photometric jitter of B images as numbers, drawn on the host and applied to all images at once on a device.

    Each image takes up to seven steps in turn: three blends, a turn of the hue, and three blends. A blend is
    ``factor * x + (1 - factor) * target``. Brightness, contrast and saturation are blends with black, with the image's
    mean gray, and with each pixel's gray. So any order of the four is a row of numbers: an image whose hue turns first
    does nothing in the first three steps. Conversion to gray and blur follow.
    """

    values: Tensor  #: (B, 20 + K) float32: all of what follows, so that one tensor travels

    @classmethod
    def pack(cls, *, blends: Tensor, hue: Tensor, gray: Tensor, kernel: Tensor) -> Jitter:
        """Join the numbers of the shapes below."""
        return cls(torch.cat((blends.flatten(1), hue[:, None], gray[:, None], kernel), dim=1))

    @property
    def blends(self) -> Tensor:
        """(B, 6, 3): factor, and 1 if the target is the mean gray or the pixel's gray. Factor 1 changes nothing."""
        return self.values[:, :18].unflatten(1, (6, 3))

    @property
    def hue(self) -> Tensor:
        """(B,) turn of the hue between the third and the fourth blend, in full turns. 0 changes nothing."""
        return self.values[:, 18]

    @property
    def gray(self) -> Tensor:
        """(B,) 1 to convert to gray, else 0."""
        return self.values[:, 19]

    @property
    def kernel(self) -> Tensor:
        """(B, K) weights of the blur along either side, with a sum of 1. A 1 in the middle changes nothing."""
        return self.values[:, 20:]


def _each_tensor(container: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The container with ``function`` applied to its tensors."""
    values = {field.name: getattr(container, field.name) for field in fields(container)}
    return replace(container, **{name: function(value) for name, value in values.items() if isinstance(value, Tensor)})


@dataclass  # neither frozen nor slotted: Lightning Fabric rebuilds it when it converts precision
class SegmentationOutput:
    """The output of a network for images (B, 3, H, W)."""

    logits: Tensor  #: (B, C, H, W) class scores at the resolution of the image
    coarse: Tensor  #: (B, C, h, w) class scores at the resolution of the embedding
    embedding: Tensor | None = None  #: (B, D, h, w) pixel embeddings z = g(h(x)); None without a projection head
    auxiliary: Tensor | None = None  #: (B, C, H, W) class scores of the auxiliary head, in training only
    #: (B, C - 1, h, w) scores of the classification head at each place of the encoder's last features, for all classes
    #: except the background; None without this head
    activation: Tensor | None = None

    def __getitem__(self, images: slice) -> SegmentationOutput:
        """The output for some of the images."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[images] for name, value in values.items() if value is not None})

    def detach(self) -> SegmentationOutput:
        """The same output without gradient."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.detach() for name, value in values.items() if value is not None})

    @classmethod
    def cat(cls, parts: Sequence[SegmentationOutput]) -> SegmentationOutput:
        """Join several outputs of one network."""
        names = [field.name for field in fields(cls) if getattr(parts[0], field.name) is not None]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def shifted(self, shift: Tensor) -> SegmentationOutput:
        """The output with a ``shift`` added to its logits and coarse scores: (B, C) by image, or (1, C) for all."""
        shift = shift[:, :, None, None]
        return replace(self, logits=self.logits + shift, coarse=self.coarse + shift)


@dataclass(frozen=True, slots=True)
class PseudoLabel:
    """The teacher's predictions for unlabeled pixels, split into reliable and unreliable ones."""

    label: Tensor  #: (B, H, W) int64, the most likely class
    entropy: Tensor  #: (B, H, W) float32, nats
    confidence: Tensor  #: (B, H, W) float32, probability of the most likely class
    valid: Tensor  #: (B, H, W) bool, False on crop padding
    reliable: Tensor  #: (B, H, W) bool, a subset of valid
    unreliable: Tensor  #: (B, H, W) bool, a subset of valid, disjoint from reliable

    @classmethod
    def from_logits(cls, logits: Tensor, valid: Tensor | None = None) -> PseudoLabel:
        """Label, entropy ``H(p) = -sum_c p_c log p_c`` and confidence of logits (B, C, H, W).

        Before a partition, every valid pixel counts as reliable.
        """
        log_probability = logits.float().log_softmax(dim=1)
        probability = log_probability.exp()
        confidence, label = probability.max(dim=1)
        entropy = -(probability * log_probability).sum(dim=1)
        valid = torch.ones_like(label, dtype=torch.bool) if valid is None else valid
        return cls(label, entropy, confidence, valid, reliable=valid, unreliable=torch.zeros_like(valid))

    @classmethod
    def cat(cls, parts: Sequence[PseudoLabel]) -> PseudoLabel:
        """Join several batches."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def target(self) -> Tensor:
        """(B, H, W) int64: the label where it is reliable, IGNORE_INDEX elsewhere."""
        return self.label.where(self.reliable, torch.full_like(self.label, IGNORE_INDEX))
