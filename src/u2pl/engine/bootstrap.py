"""How sure a difference of two networks is: the bootstrap over validation images."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

FEWEST_IMAGES = 4  #: with fewer, an interval says nothing
_DRAWS, _SEED = 2000, 0
_TAIL = 0.025  # on each side of the interval


@dataclass(frozen=True)
class Gain:
    """What one network is better than another on the same images, in points of mIoU."""

    points: float
    low: float  #: 95 % of the draws are between low and high
    high: float
    images: int


def gain(before: Tensor, after: Tensor) -> Gain:
    """The difference of mIoU of two networks, with its 95 % interval over draws of images (Efron 1979).

    Each draw takes as many images as there are, with replacement, the same for both networks.

    Args:
        before, after: (N, 2, C) int64, intersection and union of each image and class; N >= 1.
    """
    count = len(before)
    once, times = _draws(count)
    whole, draws = (miou(times_of, after) - miou(times_of, before) for times_of in (once, times))
    low, high = _bounds(draws)
    return Gain(whole.item(), low, high, count)


def interval(areas: Tensor) -> tuple[float, float]:
    """The 95 % interval of a network's mIoU in percent, over the draws of :func:`gain`.

    Args:
        areas: (N, 2, C) int64, intersection and union of each image and class; N >= 1.
    """
    _, times = _draws(len(areas))
    return _bounds(miou(times, areas))


def _draws(count: int) -> tuple[Tensor, Tensor]:
    """(1, N) and (D, N) float64, how often each image counts: every image once, and draws with replacement."""
    generator = torch.Generator().manual_seed(_SEED)
    drawn = torch.randint(count, (_DRAWS, count), generator=generator)
    one = torch.ones(1, 1, dtype=torch.float64)
    times = torch.zeros(_DRAWS, count, dtype=torch.float64).scatter_add_(1, drawn, one.expand_as(drawn))
    return one.expand(1, count), times


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
    measured = (
        f"{found.points:+.1f} mIoU since the warm-up, which saw labels only ({warmup} steps); 95 % interval "
        f"{found.low:+.1f} to {found.high:+.1f} over {found.images} validation images"
    )
    command = shlex.join(["u2pl", "predict", str(folder), "--weights", "best"])
    if found.low > 0:
        return f"unlabeled images helped: {measured}"
    if found.high < 0:
        return f"unlabeled images did harm: {measured}; use the best weights: `{command}`"
    return f"unlabeled images made no clear difference: {measured}"
