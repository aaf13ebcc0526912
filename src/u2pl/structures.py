"""Plain typed containers that travel between the rooms. Nothing here computes more than a softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

# What a keyword argument of a part may be. A configuration checks its keys by the same annotations.
Share = Annotated[float, Interval(ge=0, le=1)]
Positive = Annotated[int, Gt(0)]
Count = Annotated[int, Ge(0)]
Above0 = Annotated[float, Gt(0)]
AtLeast0 = Annotated[float, Ge(0)]

#: Pixels with this label never train and are never evaluated.
IGNORE_INDEX = 255


@dataclass(frozen=True, slots=True)
class Batch:
    """What one training step draws: labeled crops, and two views of unlabeled crops.

    Images are float32 RGB in [0, 1]; the network normalises them. ``weak``, ``strong`` and ``strong_2`` share their
    geometry pixel by pixel and differ in photometric jitter only.
    """

    image: Tensor  #: (B_l, 3, H, W) float32, labeled crops
    label: Tensor  #: (B_l, H, W) int64, class index or IGNORE_INDEX (crop padding included)
    weak: Tensor | None = None  #: (B_u, 3, H, W) float32
    strong: Tensor | None = None  #: (B_u, 3, H, W) float32
    valid: Tensor | None = None  #: (B_u, H, W) bool, False on crop padding
    strong_2: Tensor | None = None  #: (B_u, 3, H, W) float32, jittered anew; for methods with two strong views
    #: (B_u, H, W) int64, true classes of the unlabeled crops, IGNORE_INDEX where unknown. None unless a run is being
    #: diagnosed: it measures what training did, and no loss may depend on it.
    truth: Tensor | None = None
    #: (B_u, C) bool, classes that an unlabeled image may show, class 0 (background) always among them; all of them
    #: where its tags are not known. None unless images come with tags.
    tags: Tensor | None = None
    tagged: Tensor | None = None  #: (B_u,) bool, whether the tags of an image are known; None with ``tags``
    #: (B_u, C) float32, what to add to the logits of an unlabeled image by what images like it show; None without that
    prior: Tensor | None = None
    #: Whether the weak images are also the last of the labeled ones, where they have seeds for labels.
    seeded: bool = False

    def unlabeled_views(self) -> tuple[Tensor, list[Tensor]]:
        """The weak view, and one or two strong views. Raises ValueError when the batch has no unlabeled images."""
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
    """What a network returns for images (B, 3, H, W)."""

    logits: Tensor  #: (B, C, H, W) class scores at the resolution of the image
    coarse: Tensor  #: (B, C, h, w) class scores at the resolution of the embedding
    embedding: Tensor | None = None  #: (B, D, h, w) pixel embeddings z = g(h(x)); None without a projection head
    auxiliary: Tensor | None = None  #: (B, C, H, W) class scores of the auxiliary head, in training only
    #: (B, C - 1, h, w) scores of all classes but the background at each place of the encoder's last features, by the
    #: classification head; None without one
    activation: Tensor | None = None

    def __getitem__(self, images: slice) -> SegmentationOutput:
        """The output of some of the images."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[images] for name, value in values.items() if value is not None})

    @classmethod
    def cat(cls, parts: Sequence[SegmentationOutput]) -> SegmentationOutput:
        """Several outputs of one network as one."""
        names = [field.name for field in fields(cls) if getattr(parts[0], field.name) is not None]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def shifted(self, shift: Tensor) -> SegmentationOutput:
        """The output with a ``shift`` (B, C) of the logits and coarse scores of each image, or (1, C) of all."""
        shift = shift[:, :, None, None]
        return replace(self, logits=self.logits + shift, coarse=self.coarse + shift)


@dataclass(frozen=True, slots=True)
class PseudoLabel:
    """The teacher's opinion of unlabeled pixels, and which of it to believe."""

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
        """Several batches as one."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def target(self) -> Tensor:
        """(B, H, W) int64: the label where it is reliable, IGNORE_INDEX elsewhere."""
        return self.label.where(self.reliable, torch.full_like(self.label, IGNORE_INDEX))
