"""Features of whole images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor

from u2pl.data.source import Sample
from u2pl.networks.image_encoder import ImageEncoder
from u2pl.pixels.views import as_float


@torch.no_grad()
def image_features(
    fabric: Fabric,
    encoder: ImageEncoder,
    samples: Sequence[Sample],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """(I, K) float32 on the host, of length 1, see :class:`~u2pl.networks.image_encoder.ImageEncoder`.

    The processes share the images, and all get the same features. Afterwards the encoder is on the host and
    standardises features by these images.

    Args:
        progress: called with the number of images that this process has done, and their total.
    """
    encoder.to(fabric.device)

    def described(sample: Sample) -> Tensor:
        return encoder.described(as_float(fabric.to_device(sample.image()))[None])[0]

    rows = torch.zeros(len(samples), len(described(samples[0])), device=fabric.device)
    mine = range(fabric.global_rank, len(samples), fabric.world_size)
    for done, place in enumerate(mine, start=1):
        rows[place] = described(samples[place])
        if progress is not None:
            progress(done, len(mine))
    rows = fabric.all_reduce(rows, reduce_op="sum").cpu()  # type: ignore[union-attr]
    encoder.cpu()
    encoder.standardise(rows)
    return encoder.compared(rows)
