"""What the images of a data set show as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor

from u2pl.data.source import Sample
from u2pl.data.transforms import to_float
from u2pl.networks.image_encoder import ImageEncoder


@torch.no_grad()
def image_features(
    fabric: Fabric,
    encoder: ImageEncoder,
    samples: Sequence[Sample],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """(I, K) float32 on the host, of length 1, see :class:`~u2pl.networks.image_encoder.ImageEncoder`.

    The encoder compares images, from then on, by how they differ from these; it goes to the host.

    Args:
        progress: told how many images are done, and of how many.
    """
    encoder.to(fabric.device)
    described = []
    for number, sample in enumerate(samples, start=1):
        described.append(encoder.described(to_float(sample.image())[None].to(fabric.device)).cpu())
        if progress is not None:
            progress(number, len(samples))
    encoder.cpu()
    rows = torch.cat(described)
    encoder.standardise(rows)
    return encoder.compared(rows)
