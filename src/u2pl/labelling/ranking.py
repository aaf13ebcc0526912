"""The order in which labels of images are expected to help. Pure functions on tensors.

An image is worth its label if it resembles many images that resemble none with a label; if the network is unsure of
much of it, above all where it sees rare classes; and if it differs from those that are labeled or chosen already. What
is unsure is U2PL's partition by entropy (Wang et al. 2022, arXiv 2203.03884, section 3.3). The choice is the greedy
algorithm for facility location (Nemhauser et al. 1978), or that for the k-centre problem (Sener and Savarese 2018,
arXiv 1708.00489, algorithm 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

#: Bins of a histogram of entropies.
BINS = 64
#: The largest distance of two rows of length 1: an image is this far away if nothing is labeled or chosen yet.
FARTHEST = 2.0

_RAREST = 1e-3  # a share of pixels; rarer classes, often a few wrong pixels, weigh no more than one of this share
_SMALL = 1e-3  # keeps almost constant features from being amplified
_ROWS = 1024  # compared at a time
_AGAIN = 64  # gains computed anew at a time
_DRAWN = 2000  # rows that stand for all rows


def entropy_edges(num_classes: int, bins: int = BINS) -> Tensor:
    """(bins - 1,) float32: where the bins of entropies (nats) border on each other.

    They lie close to each other near 0, where most pixels of a well trained network are, and near ln C, the largest
    entropy, where those of one that has hardly been trained are: at 4 u^3 ln C, for u = 1 / bins, 2 / bins, ... up to
    1/2, and at the mirror images of these. No bin is wider than 5 % of ln C.
    """
    largest = math.log(max(2, num_classes))
    place = torch.arange(1, bins, dtype=torch.float64) / bins
    rising = 4 * torch.minimum(place, 1 - place) ** 3
    return (largest * torch.where(place <= 0.5, rising, 1 - rising)).float()


def class_entropy_histogram(label: Tensor, entropy: Tensor, num_classes: int, edges: Tensor) -> Tensor:
    """(B, C, bins) float32: the share of each image's pixels that has a class and an entropy.

    Args:
        label: (B, H, W) int64, class index.
        entropy: (B, H, W) float32, nats.
        edges: of :func:`entropy_edges`; a pixel on an edge belongs to the bin above it.
    """
    bins = len(edges) + 1
    images = torch.arange(len(label), device=label.device)[:, None, None]
    # Entropy 0 is the lowest bin, as in every partition, and rounding may make it less.
    pairs = (images * num_classes + label) * bins + torch.bucketize(entropy, edges, right=True)
    counts = torch.bincount(pairs.flatten(), minlength=len(label) * num_classes * bins)
    return counts.view(len(label), num_classes, bins).float() / label[0].numel()


def first_unreliable(shares: Tensor, alpha: float) -> int:
    """The first bin of unreliable entropies: from there on, bins hold at most the share ``alpha`` of all pixels.

    Its lower edge is gamma, the (1 - alpha) quantile of the entropy, up to the width of a bin. The lowest bin, of
    pixels that the network is certain of, is always reliable.

    Args:
        shares: (bins,) of pixels, in any unit.
        alpha: in [0, 1].

    Returns:
        1 to bins; bins if no pixel is unreliable.
    """
    above = shares.double().flip(0).cumsum(0).flip(0)  # (bins,) at this bin or above
    within = above <= alpha * above[0] * (1 + 1e-9)
    return max(1, len(shares) - int(within.sum()))


def threshold(first: int, edges: Tensor) -> float:
    """gamma in nats: pixels of at least this entropy are unreliable. ``first`` is of :func:`first_unreliable`."""
    return float(edges[first - 1]) if first <= len(edges) else math.inf


def rarity(shares: Tensor) -> Tensor:
    """(C,) float32: inverse square root of each class's share of the pixels, 1 on average over the pixels.

    Args:
        shares: (C,) of pixels, in any unit, not all 0.
    """
    share = shares.double() / shares.double().sum()
    weight = share.clamp(min=_RAREST).rsqrt()
    return (weight / (share * weight).sum()).float()


def unreliable_area(histogram: Tensor, first: int, weight: Tensor | None = None) -> Tensor:
    """(N,) float32: the share of unreliable pixels, each multiplied by the weight of its class.

    Args:
        histogram: (N, C, bins) of :func:`class_entropy_histogram`.
        first: first unreliable bin.
        weight: (C,) of classes; None: 1.
    """
    area = histogram[..., first:].float().sum(dim=2)
    return area.sum(dim=1) if weight is None else area @ weight


def alike(embedding: Tensor) -> Tensor:
    """(N, K) float16 rows of length 1, to compare images by: each feature standardised over the images.

    Args:
        embedding: (N, K) float, one row an image; converted a few rows at a time.
    """
    parts = [slice(start, start + _ROWS) for start in range(0, len(embedding), _ROWS)]
    total = sum((embedding[part].double().sum(dim=0) for part in parts), torch.zeros(()))
    centre = total / max(1, len(embedding))
    squares = sum(((embedding[part].double() - centre).square().sum(dim=0) for part in parts), torch.zeros(()))
    spread = (squares / max(1, len(embedding))).sqrt() + _SMALL
    rows = torch.empty(embedding.shape, dtype=torch.float16)
    for part in parts:
        rows[part] = torch.nn.functional.normalize((embedding[part].double() - centre) / spread, dim=1).half()
    return rows


class Chosen(NamedTuple):
    """Rows in the order of their choice."""

    place: list[int]  #: of a row
    score: list[float]  #: of a row when it was chosen
    nearest: list[int]  #: what was closest then: the place of a chosen row, -1 - m for centre m, or NOTHING


#: There was no centre and no chosen row.
NOTHING = -(2**62)
#: Distances (N,) of rows to the closest one that is a centre or chosen, and places (P,) of rows -> their gains (P,).
Gain = Callable[[Tensor, Tensor], Tensor]


def core_set(
    rows: Tensor,
    value: Tensor,
    count: int,
    *,
    centres: Tensor | None = None,
    diverse: bool = True,
    seed: int = 0,
) -> Chosen:
    """Choose ``count`` rows greedily by ``value`` times the distance to the closest row that is a centre or chosen.

    With ``value`` 1 it is the k-centre algorithm. Where all that is left has no value, the farthest row is chosen.
    Needs memory for a distance to each row, and as many passes over the rows as there are centres and choices.

    Args:
        rows: (N, K) float, of length 1; see :func:`alike`.
        value: (N,) float, at least 0.
        count: at most N are chosen.
        centres: (M, K) of labeled images; None: none.
        diverse: false: by ``value`` alone.
        seed: decides between equal rows.
    """
    value = value.float()

    def gain(distance: Tensor, places: Tensor) -> Tensor:
        return value[places] * distance[places] if diverse else value[places]

    return _greedy(rows, gain, count, centres=centres, seed=seed)


def covering(rows: Tensor, value: Tensor, count: int, *, centres: Tensor | None = None, seed: int = 0) -> Chosen:
    """Choose ``count`` rows greedily by what they cover: the greedy algorithm for facility location.

    A row's score is the mean over all rows of ``value * (distance - away)``, where that is positive: ``distance`` is to
    the closest row that is a centre or chosen, ``away`` to the row that is scored. So a row that resembles nothing
    scores low; with :func:`core_set` it scores high. Where nothing more can be covered, the farthest row is chosen.
    From more than 2 000 rows, ``seed`` draws 2 000 over which the mean is.

    Args: as for :func:`core_set`.
    """
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:_DRAWN].sort().values
    others, weight = rows[drawn].float(), value[drawn].float() / max(1, len(drawn))
    square = others.square().sum(dim=1)

    def gain(distance: Tensor, places: Tensor) -> Tensor:
        covered = torch.empty(len(places))
        for start in range(0, len(places), _ROWS):
            part = rows[places[start : start + _ROWS]].float()
            away = (part.square().sum(dim=1, keepdim=True) + square - 2 * part @ others.T).clamp(min=0).sqrt()
            covered[start : start + _ROWS] = (distance[drawn] - away).clamp(min=0) @ weight
        return covered

    return _greedy(rows, gain, count, centres=centres, seed=seed)


def _greedy(rows: Tensor, gain: Gain, count: int, *, centres: Tensor | None, seed: int) -> Chosen:
    """Choose rows by their gain, which never rises from choice to choice; so most need not be computed each time."""
    distance = torch.full((len(rows),), FARTHEST)
    nearest = torch.full((len(rows),), NOTHING)
    turn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    left = torch.ones(len(rows), dtype=torch.bool)
    if centres is not None and len(centres):
        _approach(distance, nearest, rows, centres, -1 - torch.arange(len(centres)))
    chosen = Chosen([], [], [])
    bound = gain(distance, torch.arange(len(rows)))  # at least the gain
    for _ in range(min(count, len(rows))):
        scores, stale = torch.full((len(rows),), -1.0), bound.masked_fill(~left, -1.0)
        while stale.max() >= max(0.0, float(scores.max())):
            places = stale.topk(min(_AGAIN, len(rows))).indices
            places = places[stale[places] >= 0]
            scores[places] = bound[places] = gain(distance, places)
            stale[places] = -1.0
        best = _first(scores if scores.max() > 0 else distance.masked_fill(~left, -1.0), turn)
        for entries, entry in zip(chosen, (best, max(0.0, float(scores[best])), int(nearest[best])), strict=True):
            entries.append(entry)  # type: ignore[attr-defined]
        left[best] = False
        _approach(distance, nearest, rows, rows[best : best + 1], torch.tensor([best]))
    return chosen


def _first(value: Tensor, turn: Tensor) -> int:
    """The place of the largest value; of equal ones that with the lowest ``turn``."""
    places = (value == value.max()).nonzero()[:, 0]
    return int(places[turn[places].argmin()])


def _approach(distance: Tensor, nearest: Tensor, rows: Tensor, centres: Tensor, names: Tensor) -> None:
    """Note for each row that is closer to new ``centres`` than to the earlier ones: how close, and to which."""
    centres = centres.float()
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        # Not by the product of the rows: that of two equal rows in half precision is not exactly 1.
        away = torch.cdist(rows[part].float(), centres, compute_mode="donot_use_mm_for_euclid_dist")
        new, which = away.min(dim=1)
        closer = new < distance[part]
        distance[part] = torch.where(closer, new, distance[part])
        nearest[part] = torch.where(closer, names[which], nearest[part])
