"""What images show as a whole, by the encoder that training begins with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.data.source import Sample
from u2pl.data.transforms import to_float

SIDE = 224  #: images are resized to this shorter side, for which encoders are pretrained


@torch.no_grad()
def image_features(
    fabric: Fabric, network: nn.Module, samples: Sequence[Sample], *, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """(I, K) float32 on the host, of length 1: the more alike two images are, the larger is the product of their rows.

    An encoder that comes with the classifier of its training says which of those classes an image shows: rows are the
    roots of probabilities, their products Bhattacharyya coefficients. One without has the mean of its last features,
    standardised, as the mean of all images says nothing about any: the products are cosine similarities.

    The network is left in its mode, on its device.

    Args:
        progress: told how many images are done, and of how many.
    """
    mode, home = network.training, next(network.parameters()).device
    network.eval().to(fabric.device)
    found, vocabulary = [], network.vocabulary
    for number, sample in enumerate(samples, start=1):
        image = to_float(sample.image())[None].to(fabric.device)
        scale = SIDE / min(image.shape[-2:])
        size = [max(1, round(scale * side)) for side in image.shape[-2:]]
        image = F.interpolate(image, size=size, mode="bilinear", antialias=scale < 1)
        features = network.encode(image).float()  # type: ignore[operator]
        found.append((features.mean(dim=(2, 3)) if vocabulary is None else vocabulary(features)).cpu())  # type: ignore[operator]
        if progress is not None:
            progress(number, len(samples))
    network.train(mode).to(home)
    rows = torch.cat(found)
    if vocabulary is not None:
        return F.normalize(rows.sqrt(), dim=1)
    return F.normalize((rows - rows.mean(dim=0)) / (rows.std(dim=0) + 1e-3), dim=1)
