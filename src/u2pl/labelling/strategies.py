"""Looks at images -> the order in which to label them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from u2pl.labelling.looks import Looks
from u2pl.labelling.ranking import (
    NOTHING,
    alike,
    core_set,
    covering,
    entropy_edges,
    first_unreliable,
    rarity,
    threshold,
    unreliable_area,
)

#: ``typical``: resembles many images that resemble no labeled one (for few labels, as in Hacohen et al. 2022, arXiv
#: 2202.02794); ``expected``: the same, and each of these counts by its unreliable area; ``diverse``: resembles none;
#: ``entropy``: mean entropy; ``random``.
Strategy = Literal["typical", "expected", "diverse", "entropy", "random"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)

_SHOWN = 0.01  # share of an image's pixels; smaller areas of a class are often wrong


@dataclass(frozen=True)
class Suggestion:
    """An image to label."""

    place: int  #: number of the image
    score: float  #: by which it was chosen
    unreliable: float  #: share of its pixels
    entropy: float  #: mean over its pixels, nats
    classes: tuple[int, ...]  #: that cover at least 1 % of it, the largest first
    nearest: int | None  #: number of the most similar image that is labeled or suggested before it


@dataclass(frozen=True)
class Ranking:
    """Images to label, the most useful first."""

    suggestions: tuple[Suggestion, ...]
    gamma: float  #: nats; pixels of at least this entropy are unreliable


def rank(
    looks: Looks,
    count: int,
    *,
    labeled: Sequence[int] = (),
    strategy: str = "typical",
    alpha: float = 0.2,
    seed: int = 0,
) -> Ranking:
    """Rank the images that are looked at.

    gamma and the rarity of classes are over all of these images but the labeled ones; each image counts the same.

    Args:
        looks: at one image or more that are not labeled.
        count: of images to suggest; more than there are: all.
        labeled: numbers of labeled images, from which suggestions should differ.
        strategy: one of ``STRATEGIES``.
        alpha: share of unreliable pixels.
        seed: decides between equal images, and draws those of ``random``.
    """
    order = sorted(range(len(looks.places)), key=lambda record: looks.places[record])  # of the images
    known = set(labeled)
    free = torch.tensor([record for record in order if looks.places[record] not in known])
    centres = torch.tensor([record for record in order if looks.places[record] in known], dtype=torch.long)
    total = _total(looks, free)
    first = first_unreliable(total.sum(dim=0), alpha)
    weighted, plain, shares = _areas(looks, first, rarity(total.sum(dim=1)))
    rows = alike(looks.embedding())
    own, others = rows[free], rows[centres]
    del rows  # it is large
    entropy = looks.entropy()
    if strategy in ("typical", "expected"):
        worth = weighted[free] if strategy == "expected" else torch.ones(len(free))
        chosen = covering(own, worth, count, centres=others, seed=seed)
    elif strategy == "diverse":
        chosen = core_set(own, torch.ones(len(free)), count, centres=others, seed=seed)
    else:
        draw = torch.rand(len(free), generator=torch.Generator().manual_seed(seed))
        value = draw if strategy == "random" else entropy[free]
        chosen = core_set(own, value, count, centres=others, diverse=False, seed=seed)

    def number(place: int) -> int | None:
        if place == NOTHING:
            return None
        return looks.places[int(free[place] if place >= 0 else centres[-1 - place])]

    suggestions = []
    for place, score, nearest in zip(*chosen, strict=True):
        record = int(free[place])
        suggestions.append(
            Suggestion(
                place=looks.places[record],
                score=score,
                unreliable=float(plain[record]),
                entropy=float(entropy[record]),
                classes=_shown(shares[record]),
                nearest=number(nearest),
            )
        )
    return Ranking(tuple(suggestions), threshold(first, entropy_edges(len(total))))


def _total(looks: Looks, records: Tensor) -> Tensor:
    """(C, bins) float64, the sum of the histograms of these records."""
    counts = torch.zeros(len(looks.places), dtype=torch.float64)
    counts[records] = 1.0
    total, start = torch.zeros(()), 0
    for part in looks.histograms():
        total = total + torch.einsum("n,ncb->cb", counts[start : start + len(part)], part.double())
        start += len(part)
    return total


def _areas(looks: Looks, first: int, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unreliable areas (R,), weighted and not, and the share of each class (R, C), of each record."""
    parts = [
        (unreliable_area(part, first, weight), unreliable_area(part, first), part.sum(dim=2))
        for part in looks.histograms()
    ]
    weighted, plain, shares = (torch.cat(each) for each in zip(*parts, strict=True))
    return weighted, plain, shares


def _shown(shares: Tensor) -> tuple[int, ...]:
    """Classes with at least 1 % of the pixels, the largest first."""
    order = shares.argsort(descending=True, stable=True).tolist()
    return tuple(index for index in order if shares[index] >= _SHOWN)
