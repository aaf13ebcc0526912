"""What a step of U2PL sees: mixed images, the teacher's opinion of them, and the pixel sets of the contrast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from u2pl.pixels.mixing import Mix
from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel, SegmentationOutput

NegativesFrom = Literal["unreliable", "reliable", "all"]
Jitter = Callable[[Tensor], Tensor]  #: photometric, of one image (3, H, W) float32 in [0, 1]


@dataclass(frozen=True, slots=True)
class Views:
    """The images of a step, and the teacher's opinion of the unlabeled ones."""

    images: Tensor  #: (B_l + V B_u, 3, H, W) labeled images, then the mixed ones of each of V strong views
    weak: Tensor  #: (B_u, 3, H, W)
    teacher: SegmentationOutput  #: of the weak images, perhaps of the labeled ones before them
    pseudo: PseudoLabel  #: of the weak images
    mixes: list[Mix]  #: one of each strong view
    targets: PseudoLabel  #: of the mixed images

    def known(self) -> Tensor:
        """(V B_u, H, W) int64: true labels of mixed pixels that come from labeled images, IGNORE_INDEX on others."""
        return torch.cat([mix.true_label() for mix in self.mixes])


def jittered(images: Tensor, jitter: Jitter | None) -> Tensor:
    """Images (B, 3, H, W), each with a jitter of its own; None leaves them as they are."""
    if jitter is None:
        return images
    with torch.autocast(images.device.type, enabled=False):  # a blur is a convolution, which would be rounded
        return torch.stack([jitter(image) for image in images])


def mixed_view(view: SegmentationOutput, mixes: Sequence[Mix], *, labeled: int) -> SegmentationOutput:
    """The teacher's view of labeled and weak images, the latter mixed as the images the student sees."""

    def mixed(tensor: Tensor) -> Tensor:
        return torch.cat((tensor[:labeled], *(mix.apply(tensor[labeled:], tensor[:labeled]) for mix in mixes)))

    embedding = None if view.embedding is None else mixed(view.embedding)
    return replace(view, coarse=mixed(view.coarse), embedding=embedding)


def informed(view: SegmentationOutput, prior: Tensor | None) -> SegmentationOutput:
    """The teacher's view with a prior (B_u, C) of the unlabeled images, its last ones: p(c | pixel) p(c in image).

    It shifts logits and coarse scores alike, so that pseudo-labels, their reliability and the ranks of keys know of it.
    """
    if prior is None:
        return view
    return shifted(view, F.pad(prior, (0, 0, len(view.logits) - len(prior), 0)))


def shifted(view: SegmentationOutput, shift: Tensor) -> SegmentationOutput:
    """The view with a ``shift`` (B, C) of the logits and coarse scores of each image, or (1, C) of all."""
    shift = shift[:, :, None, None]
    return replace(view, logits=view.logits + shift, coarse=view.coarse + shift)


def embedding_of(output: SegmentationOutput) -> Tensor:
    """The embedding of a network with a projection head, which a contrast needs."""
    assert output.embedding is not None
    return output.embedding


def pixel_sets(
    label: Tensor,
    pseudo: PseudoLabel,
    *,
    known: Tensor | None = None,
    size: torch.Size,
    negatives_from: NegativesFrom = "unreliable",
) -> dict[str, Tensor]:
    """What the contrast asks of labeled and unlabeled pixels together, at the resolution of the embedding.

    ``known`` (B_u, H, W) int64 is the true class of pixels that were pasted onto unlabeled images. These are labeled
    pixels wherever they lie: anchors and hard negatives by their true class, never negatives by what is predicted.

    Returns (B_l + B_u, h, w): ``target``, the class of labeled and of reliable pixels; ``label``, the true class of
    labeled pixels; ``unreliable``, unlabeled pixels that serve as negatives. All others are IGNORE_INDEX or False.
    """
    known = torch.full_like(pseudo.label, IGNORE_INDEX) if known is None else known
    negatives = {"unreliable": pseudo.unreliable, "reliable": pseudo.reliable, "all": pseudo.valid}[negatives_from]
    sets = {
        "target": torch.cat((label, pseudo.target())),
        "label": torch.cat((label, known)),
        "unreliable": torch.cat((torch.zeros_like(label, dtype=torch.bool), negatives & (known == IGNORE_INDEX))),
    }
    return {name: downsample(tensor, size) for name, tensor in sets.items()}


def true_classes(batch: Batch, mixes: Sequence[Mix], *, size: torch.Size) -> Tensor | None:
    """(B_l + V B_u, h, w) int64: labels, then true classes mixed as the images; None unless a run is diagnosed.

    Where a mix has erased, the class says nothing.
    """
    if batch.truth is None:
        return None
    return downsample(torch.cat((batch.label, *(mix.apply(batch.truth, batch.label) for mix in mixes))), size)


def downsample(tensor: Tensor, size: torch.Size) -> Tensor:
    """(B, H, W) of any dtype to (B, h, w) by nearest neighbour."""
    return F.interpolate(tensor.unsqueeze(1).float(), size=size).squeeze(1).to(tensor.dtype)
