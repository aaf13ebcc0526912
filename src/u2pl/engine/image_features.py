"""What images show as a whole, by the encoder that training begins with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.data.source import Sample
from u2pl.data.transforms import to_float

SIDE = 256  #: images are resized to this shorter side, for which encoders are pretrained


@torch.no_grad()
def image_features(
    fabric: Fabric, network: nn.Module, samples: Sequence[Sample], *, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """(I, K) float32 on the host: ``network.describe`` of whole images. The network is left in its mode, on its device.

    Args:
        progress: told how many images are done, and of how many.
    """
    mode, home = network.training, next(network.parameters()).device
    network.eval().to(fabric.device)
    found = []
    for number, sample in enumerate(samples, start=1):
        image = to_float(sample.image())[None].to(fabric.device)
        scale = SIDE / min(image.shape[-2:])
        size = [max(1, round(scale * side)) for side in image.shape[-2:]]
        image = F.interpolate(image, size=size, mode="bilinear", antialias=scale < 1)
        found.append(network.describe(image).float().cpu())  # type: ignore[operator]
        if progress is not None:
            progress(number, len(samples))
    network.train(mode).to(home)
    return torch.cat(found)
