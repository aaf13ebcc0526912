"""The photometric part of a strong view. It does not move pixels, so labels stay valid."""

from __future__ import annotations

from torchvision.transforms import v2


class Photometric(v2.Compose):
    """Jitter of brightness, contrast, saturation and hue, conversion to gray, and blur, each with its probability.

    Takes an image (3, H, W), uint8 or float in [0, 1], on any device. Random numbers come from the CPU's global
    generator, so that no device has to be synchronised.

    Args:
        jitter: brightness, contrast, saturation and hue, as in :class:`torchvision.transforms.v2.ColorJitter`.
        blur_sigma: smallest and largest standard deviation, pixels.
        blur_kernel: side, pixels.
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
        super().__init__(
            [
                v2.RandomApply([v2.ColorJitter(*jitter)], p=jitter_probability),
                v2.RandomGrayscale(gray_probability),
                v2.RandomApply([v2.GaussianBlur(blur_kernel, blur_sigma)], p=blur_probability),
            ]
        )
