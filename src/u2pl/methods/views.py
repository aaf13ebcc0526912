"""What a step of U2PL sees: mixed images, the teacher's opinion of them, and the pixel sets of the contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from u2pl.pixels.mixing import Mix
from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel, SegmentationOutput

NegativesFrom = Literal["unreliable", "reliable", "all"]


@dataclass(frozen=True, slots=True)
class Views:
    """The images of a step, and the teacher's opinion of the unlabeled ones."""

    images: Tensor  #: (B_l + V B_u, 3, H, W) labeled images, then the mixed ones of each of V strong views
    weak: Tensor  #: (B_u, 3, H, W)
    teacher: SegmentationOutput  #: of the weak images, perhaps of the labeled ones before them
    pseudo: PseudoLabel  #: of the weak images
    mixes: list[Mix]  #: one of each strong view
    targets: PseudoLabel  #: of the mixed images


def mixed_view(view: SegmentationOutput, mixes: Sequence[Mix], *, labeled: int) -> SegmentationOutput:
    """The teacher's view of labeled and weak images, the latter mixed as the images the student sees."""

    def mixed(tensor: Tensor) -> Tensor:
        return torch.cat((tensor[:labeled], *(mix.apply(tensor[labeled:]) for mix in mixes)))

    return replace(view, coarse=mixed(view.coarse), embedding=mixed(embedding_of(view)))


def embedding_of(output: SegmentationOutput) -> Tensor:
    """The embedding of a network with a projection head, which a contrast needs."""
    assert output.embedding is not None
    return output.embedding


def pixel_sets(
    label: Tensor, pseudo: PseudoLabel, *, size: torch.Size, negatives_from: NegativesFrom = "unreliable"
) -> dict[str, Tensor]:
    """What the contrast asks of labeled and unlabeled pixels together, at the resolution of the embedding.

    Returns (B_l + B_u, h, w): ``target``, the class of labeled and of reliable pixels; ``label``, the true class of
    labeled pixels; ``unreliable``, unlabeled pixels that serve as negatives. All others are IGNORE_INDEX or False.
    """
    nothing = torch.full_like(pseudo.label, IGNORE_INDEX)
    negatives = {"unreliable": pseudo.unreliable, "reliable": pseudo.reliable, "all": pseudo.valid}[negatives_from]
    sets = {
        "target": torch.cat((label, pseudo.target())),
        "label": torch.cat((label, nothing)),
        "unreliable": torch.cat((torch.zeros_like(label, dtype=torch.bool), negatives)),
    }
    return {name: downsample(tensor, size) for name, tensor in sets.items()}


def true_classes(batch: Batch, mixes: Sequence[Mix], *, size: torch.Size) -> Tensor | None:
    """(B_l + V B_u, h, w) int64: labels, then true classes mixed as the images; None unless a run is diagnosed.

    Where a mix has erased, the class says nothing.
    """
    if batch.truth is None:
        return None
    return downsample(torch.cat((batch.label, *(mix.apply(batch.truth) for mix in mixes))), size)


def downsample(tensor: Tensor, size: torch.Size) -> Tensor:
    """(B, H, W) of any dtype to (B, h, w) by nearest neighbour."""
    return F.interpolate(tensor.unsqueeze(1).float(), size=size).squeeze(1).to(tensor.dtype)
