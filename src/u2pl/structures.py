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
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by the data loader)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Any) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(value) for name, value in values.items() if isinstance(value, Tensor)})


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
