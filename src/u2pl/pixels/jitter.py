"""Photometric jitter of a batch: each image by its own numbers, without reading one back from the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from u2pl.structures import Jitter

#: Luma of red, green and blue, as in torchvision.
GRAY = (0.2989, 0.587, 0.114)
#: Turns from the hue to the hue without red, green and blue.
_WITHOUT = (0.5, 1 / 6, -1 / 6)
_NOTHING = 1e-7  # a weight that changes no bit of a float32 sum worth keeping


def jittered(images: Tensor, jitter: Jitter) -> Tensor:
    """Images (B, 3, H, W) float32 in [0, 1], each jittered by its row of numbers. They are not changed themselves.

    On a CPU, steps that change nothing are left out: numbers can be read there without waiting for a device.
    """
    if _on_host(images):
        out = images.clone(memory_format=torch.contiguous_format)
        for number in range(len(out)):
            _jitter_one(out[number : number + 1], Jitter(jitter.values[number : number + 1]))
        return out
    blends = jitter.blends[..., None, None, None].unbind(dim=1)
    for blend in blends[:3]:
        images = _blended(images, *blend.unbind(dim=1))
    images = turned(images, jitter.hue[:, None, None, None])
    for blend in blends[3:]:
        images = _blended(images, *blend.unbind(dim=1))
    images = torch.lerp(images, gray_of(images), jitter.gray[:, None, None, None])
    return blurred(images, jitter.kernel)


def _on_host(images: Tensor) -> bool:
    return images.device.type == "cpu"


def _blended(images: Tensor, factor: Tensor, mean: Tensor, pixel: Tensor) -> Tensor:
    """A blend of each image with black, its mean gray or each pixel's gray; factors and switches (B, 1, 1, 1)."""
    gray = gray_of(images)
    target = pixel * gray + mean * gray.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(target, images, factor).clamp_(0, 1)


def _jitter_one(image: Tensor, jitter: Jitter) -> None:
    """Change an image (1, 3, H, W) in the host's memory by one row of numbers."""
    for number, (factor, mean, pixel) in enumerate(jitter.blends[0].tolist()):
        if number == 3 and jitter.hue.item() != 0:
            image.copy_(turned(image, jitter.hue.item()))
        if factor == 1:
            continue
        if mean or pixel:
            gray = gray_of(image)
            image.mul_(factor).add_(gray.mean() if mean else gray, alpha=1 - factor)
        else:
            image.mul_(factor)
        image.clamp_(0, 1)
    if jitter.gray.item() != 0:
        image.copy_(gray_of(image))
    kernel = jitter.kernel
    if kernel[0, kernel.shape[1] // 2] != 1:
        image.copy_(blurred(image, kernel))


def gray_of(images: Tensor) -> Tensor:
    """(B, 1, H, W): the luma of images (B, 3, H, W)."""
    red, green, blue = (images[:, band : band + 1] for band in range(3))
    return (red * GRAY[0]).add_(green, alpha=GRAY[1]).add_(blue, alpha=GRAY[2])


def turned(images: Tensor, hue: Tensor | float) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] with their hues turned, by (B, 1, 1, 1) or by one number, in full turns.

    This is the way to HSV and back in fewer steps. Largest and smallest value of a pixel stay. A colour's value is the
    smallest within a sixth of a turn of the hue that lacks it, and rises to the largest over the next sixth.
    """
    red, green, blue = (images[:, band : band + 1] for band in range(3))
    top = torch.maximum(torch.maximum(red, green), blue)
    range_ = top - torch.minimum(torch.minimum(red, green), blue)
    # Away from red by (2 + (green + blue - red - top) / range) / 6 of a turn, to the side of green or that of blue.
    away = (green + blue).sub_(red).sub_(top).div_(range_.clamp(min=1e-12)).add_(2)
    turn = torch.copysign(away, green - blue).div_(6).add_(hue)
    # Turns from the hue that lacks red, green, blue: (B, 3, H, W), to the nearest whole turn.
    apart = turn + torch.tensor(_WITHOUT, device=images.device).view(3, 1, 1)
    apart.sub_(apart.round()).abs_()
    return torch.addcmul(top, range_, apart.mul_(-6).add_(2).clamp_(0, 1), value=-1)


def blurred(images: Tensor, kernel: Tensor) -> Tensor:
    """Images (B, 3, H, W) blurred along both sides by weights (B, K), reflected at their borders.

    Sums of shifted images: a convolution would round where autocast or TF32 is on.
    """
    reach = kernel.shape[1] // 2
    host = _on_host(images) and len(images) == 1
    weights = kernel[0].tolist() if host else kernel.T[:, :, None, None, None].unbind()
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    rows = _weighted(padded, weights, dim=2, length=images.shape[2])
    return _weighted(rows, weights, dim=3, length=images.shape[3])


def _weighted(images: Tensor, weights: Sequence[Tensor | float], *, dim: int, length: int) -> Tensor:
    """The sum of images moved along a side, each move with its weight: (B, 1, 1, 1), or a number."""
    total = images.narrow(dim, 0, length) * weights[0]
    for move, weight in enumerate(weights[1:], start=1):
        moved = images.narrow(dim, move, length)
        if isinstance(weight, Tensor):
            total.addcmul_(moved, weight)
        elif weight > _NOTHING:
            total.add_(moved, alpha=weight)
    return total
