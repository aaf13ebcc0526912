"""Whether an exported file does what the network does, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from u2pl.commands.export_formats import Run
from u2pl.errors import InputError
from u2pl.predictor import Predictor

#: Least share of pixels with the same class.
EQUAL = 0.999
_LARGEST = 0.01  # difference of a probability
_SIZES = ((1, 64, 96), (2, 75, 101), (1, 33, 130), (1, 128, 64))  # images, height, width
_HEIGHT, _WIDTH = 360, 480  # of the image whose time is taken
_WARM, _TIMED = 2, 5


@dataclass(frozen=True)
class Agreement:
    """How close a file is to the network."""

    difference: float  #: largest difference of a class probability
    equal: float  #: share of pixels with the same class
    images: int


def agreement(run: Run, predictor: Predictor, images: Sequence[Tensor], *, any_batch: bool = True) -> Agreement:
    """Compare the file with the network on random images of several sizes, and on ``images``, (3, H, W) uint8.

    Random images are smooth: noise at each pixel is unlike any photograph.
    """
    generator = torch.Generator().manual_seed(0)
    batches = [image[None] for image in images]
    for count, height, width in _SIZES:
        if any_batch or count == 1:
            coarse = torch.rand(count, 3, -(-height // 8), -(-width // 8), generator=generator)
            smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
            noise = torch.rand(count, 3, height, width, generator=generator)
            batches.append((smooth * 0.8 + noise * 0.2).mul(255).to(torch.uint8))
    difference, equal, pixels = 0.0, 0, 0
    for batch in batches:
        with torch.no_grad():
            found = run(batch.float().div(255)).softmax(dim=1)
        expected = torch.stack([predictor(image).probability for image in batch])
        if found.shape != expected.shape or not found.isfinite().all():
            return Agreement(float("inf"), 0.0, len(batches))
        difference = max(difference, float((found - expected).abs().max()))
        equal += int((found.argmax(dim=1) == expected.argmax(dim=1)).sum())
        pixels += found[:, 0].numel()
    return Agreement(difference, equal / pixels, sum(map(len, batches)))


def refuse_disagreement(found: Agreement, name: str, network: str) -> None:
    """Raise InputError if the file does something else than the network."""
    if found.equal < EQUAL or not found.difference <= _LARGEST:
        raise InputError(
            f"--format {name}: the file of {network} differs from the network: {100 * found.equal:.2f} % of pixels are "
            f"equal, and a probability differs by {found.difference:.2g}; nothing is written, try another format"
        )


def seconds(run: Callable[[Tensor], object]) -> float:
    """Median time of one pass over an image of 480x360."""
    image, times = torch.rand(1, 3, _HEIGHT, _WIDTH, generator=torch.Generator().manual_seed(0)), []
    with torch.no_grad():
        for _ in range(_WARM + _TIMED):
            began = time.perf_counter()
            run(image)
            times.append(time.perf_counter() - began)
    return median(times[_WARM:])
