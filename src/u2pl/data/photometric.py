"""The photometric part of a strong view. It does not move pixels, so labels stay valid."""

from __future__ import annotations

import torch
from torch import Tensor

from u2pl.structures import Jitter

_HUE = 3  # of brightness, contrast, saturation and hue


class Photometric:
    """Jitter of brightness, contrast, saturation and hue, conversion to gray, and blur, each with its probability.

    It draws the numbers of each image; :func:`u2pl.pixels.jitter.jittered` applies them, on any device. The
    distribution is that of torchvision's ``RandomApply([ColorJitter])``, ``RandomGrayscale`` and
    ``RandomApply([GaussianBlur])`` in this order.

    Args:
        jitter: brightness, contrast, saturation and hue, as in :class:`torchvision.transforms.v2.ColorJitter`.
        blur_sigma: smallest and largest standard deviation, pixels.
        blur_kernel: side, pixels; odd.
    """

    def __init__(
        self,
        *,
        jitter: tuple[float, float, float, float] = (0.5, 0.5, 0.5, 0.25),
        jitter_probability: float = 0.8,
        gray_probability: float = 0.2,
        blur_probability: float = 0.5,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        blur_kernel: int = 9,
    ) -> None:
        if blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel must be odd, not {blur_kernel}")
        self.jitter, self.jitter_probability = jitter, jitter_probability
        self.gray_probability, self.blur_probability = gray_probability, blur_probability
        self.blur_sigma, self.blur_kernel = blur_sigma, blur_kernel

    def draw(self, count: int) -> Jitter:
        """Jitter of ``count`` images, from as many random numbers of the CPU's global generator whatever it is."""
        chosen = torch.rand(count) < self.jitter_probability
        ranks = torch.rand(count, 4).argsort(dim=1)  # when each of the four comes, 0 to 3
        factors = torch.stack([_uniform(max(0.0, 1 - range_), 1 + range_, count) for range_ in self.jitter[:_HUE]], 1)
        hue = _uniform(-self.jitter[_HUE], self.jitter[_HUE], count)
        gray = torch.rand(count) < self.gray_probability
        blurred = torch.rand(count) < self.blur_probability
        sigma = _uniform(*self.blur_sigma, count)
        return Jitter.pack(
            blends=_blends(factors.where(chosen[:, None], torch.ones(())), ranks),
            hue=hue * chosen,
            gray=gray.float(),
            kernel=_kernels(sigma, self.blur_kernel).where(blurred[:, None], _unchanged(self.blur_kernel)),
        )


def _uniform(low: float, high: float, count: int) -> Tensor:
    return torch.empty(count).uniform_(low, high)


def _blends(factors: Tensor, ranks: Tensor) -> Tensor:
    """(B, 6, 3) of :class:`Jitter`, for factors (B, 3) of brightness, contrast and saturation that come at ``ranks``.

    A blend keeps its place among the three, and those that come before the hue take the last of the first three steps.
    """
    hue = ranks[:, _HUE:]
    ranks = ranks[:, :_HUE]
    steps = 3 - hue + ranks - (ranks > hue).long()
    targets = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).expand(len(factors), 3, 2)
    blends = torch.tensor([1.0, 0.0, 0.0]).repeat(len(factors), 6, 1)
    blends[torch.arange(len(factors))[:, None], steps] = torch.cat((factors[..., None], targets), dim=2)
    return blends


def _kernels(sigma: Tensor, side: int) -> Tensor:
    """(B, side) weights of Gaussians of standard deviations (B,)."""
    places = torch.arange(side) - side // 2
    weights = torch.exp(-0.5 * (places / sigma[:, None]) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def _unchanged(side: int) -> Tensor:
    """(side,) weights of no blur."""
    return (torch.arange(side) == side // 2).float()
