"""How sure a difference of two networks is: the bootstrap over validation images, or over groups of them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

FEWEST_IMAGES = 4  #: with fewer, an interval says nothing
FEWEST_GROUPS = 5  #: the same, for groups of images that are alike
_DRAWS, _SEED = 2000, 0
_TAIL = 0.025  # on each side of the interval


@dataclass(frozen=True)
class Gain:
    """What one network is better than another on the same images, in points of mIoU."""

    points: float
    low: float | None  #: 95 % of the draws are between low and high; None: there are too few groups to say
    high: float | None
    images: int
    groups: int | None = None  #: that are drawn whole; None: each image is drawn by itself

    @property
    def helps(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low is not None and self.low > 0

    @property
    def harms(self) -> bool:
        """Whether the whole interval is below 0."""
        return self.high is not None and self.high < 0

    def between(self, *, by: str = " to ") -> str | None:
        """The ends of the interval; None without one."""
        return None if self.low is None or self.high is None else f"{self.low:+.1f}{by}{self.high:+.1f}"


def gain(before: Tensor, after: Tensor, groups: Tensor | None = None) -> Gain:
    """The difference of mIoU of two networks, with its 95 % interval over draws of images (Efron 1979).

    Each draw takes as many images as there are, with replacement, the same for both networks. Images that are alike,
    such as frames of a clip, are drawn as whole groups (a cluster bootstrap; Davison and Hinkley 1997, 3.8): drawn one
    by one they would count as more than they are, and the interval would be too narrow.

    Args:
        before, after: (N, 2, C) int64, intersection and union of each image and class; N >= 1.
        groups: (N,) int64, the number of the group of each image; None: each image by itself.
    """
    drawn = _Draws.of(len(before), groups)
    whole = whole_miou(after) - whole_miou(before)
    low, high = None, None
    if drawn.enough:
        low, high = _bounds(miou(drawn.times, after) - miou(drawn.times, before))
    return Gain(whole, low, high, len(before), drawn.groups)


def interval(areas: Tensor, groups: Tensor | None = None) -> tuple[float, float] | None:
    """The 95 % interval of a network's mIoU in percent, over the draws of :func:`gain`; None with too few groups.

    Args:
        areas: (N, 2, C) int64, intersection and union of each image and class; N >= 1.
        groups: (N,) int64, the number of the group of each image; None: each image by itself.
    """
    drawn = _Draws.of(len(areas), groups)
    return _bounds(miou(drawn.times, areas)) if drawn.enough else None


def group_count(groups: Tensor | None) -> int | None:
    """How many groups are drawn; None: each image by itself, because none is in a group with another."""
    count = 0 if groups is None else len(groups.unique())
    return count if groups is not None and count < len(groups) else None


@dataclass(frozen=True)
class _Draws:
    """Draws of images with replacement."""

    times: Tensor  #: (D, N) float64, how often each image counts
    groups: int | None  #: see :func:`group_count`

    @property
    def enough(self) -> bool:
        return self.groups is None or self.groups >= FEWEST_GROUPS

    @classmethod
    def of(cls, images: int, groups: Tensor | None) -> _Draws:
        count = group_count(groups)
        units = images if count is None else count
        generator = torch.Generator().manual_seed(_SEED)
        drawn = torch.randint(units, (_DRAWS, units), generator=generator)
        one = torch.ones(1, 1, dtype=torch.float64)
        times = torch.zeros(_DRAWS, units, dtype=torch.float64).scatter_add_(1, drawn, one.expand_as(drawn))
        if groups is None or count is None:
            return cls(times, None)
        return cls(times[:, groups.unique(return_inverse=True)[1]], count)


def _bounds(draws: Tensor) -> tuple[float, float]:
    """The ends of the 95 % interval."""
    low, high = draws.quantile(torch.tensor((_TAIL, 1 - _TAIL), dtype=torch.float64)).tolist()
    return low, high


def miou(times: Tensor, areas: Tensor) -> Tensor:
    """(D,) mIoU in percent of draws of images, over the classes that occur in a draw.

    Args:
        times: (D, N) float64, how often each image is drawn.
        areas: (N, 2, C) int64.
    """
    hit, union = (times @ areas.double().flatten(1)).unflatten(1, areas.shape[1:]).unbind(dim=1)
    shown = union > 0
    return 100 * (hit / union.clamp(min=1)).sum(dim=1) / shown.sum(dim=1).clamp(min=1)


def whole_miou(areas: Tensor) -> float:
    """mIoU in percent over all images (N, 2, C) together."""
    return miou(torch.ones(1, len(areas), dtype=torch.float64), areas).item()


def verdict(found: Gain, *, folder: Path, warmup: int) -> str:
    """Whether unlabeled images helped, and what to do if they did harm.

    Args:
        found: the model at the end against the student at the end of its warm-up.
        folder: of the run.
        warmup: its steps on labels only.
    """
    since = f"{found.points:+.1f} mIoU since the warm-up, which saw labels only ({warmup} steps)"
    images, between = f"{found.images} validation images", found.between()
    if between is None:
        return f"unlabeled images: {since}; {too_few(found, images)}"
    groups = "" if found.groups is None else f" in {found.groups} groups"
    measured = f"{since}; 95 % interval {between} over {images}{groups}"
    command = shlex.join(["u2pl", "predict", str(folder), "--weights", "best"])
    if found.helps:
        return f"unlabeled images helped: {measured}"
    if found.harms:
        return f"unlabeled images did harm: {measured}; use the best weights: `{command}`"
    return f"unlabeled images made no clear difference: {measured}"


def too_few(found: Gain, images: str) -> str:
    """Why there is no interval. ``images`` counts and names them."""
    groups = "one group" if found.groups == 1 else f"{found.groups} groups"
    return f"the {images} are of {groups}, too few to say whether that is chance"
