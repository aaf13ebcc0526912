"""Scores of the maps that train a segmentation from image-level tags."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.engine.evaluate import count, labels, summed
from u2pl.methods.seeding import Seeding, at_size
from u2pl.pixels.cam import with_background
from u2pl.pixels.views import as_float


@torch.no_grad()
def evaluate_maps(
    fabric: Fabric,
    network: nn.Module,
    images: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    *,
    seeding: Seeding,
) -> dict[str, Tensor]:
    """(C, C) confusion matrices over ``(image (3, H, W), mask (H, W))``, summed over all processes.

    Images are uint8, or float32 in [0, 1]; masks are uint8 or int64.

    ``cam`` scores the class activation maps, ``refined`` the same maps after refinement. A pixel becomes the class of
    its largest map, or background if no map is above the threshold of ``seeding``. As usual in weak supervision, the
    maps use the tags of each image, which come from its mask. The segmentation does not use them.
    """
    training = network.training
    network.eval()
    empty = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=fabric.device)
    counts = {"cam": empty, "refined": empty}
    for cpu_image, cpu_mask in images:
        image, mask = as_float(fabric.to_device(cpu_image))[None], fabric.to_device(cpu_mask).long()[None]
        classes = torch.arange(1, num_classes, device=mask.device)
        tags = (mask.flatten(1).unsqueeze(1) == classes.view(-1, 1)).any(dim=2)
        with fabric.autocast():
            maps = seeding.maps(network, image, tags)
        for name, these in {"cam": maps, "refined": seeding.refined(image, maps)}.items():
            scores = with_background(at_size(these, image.shape[-2:]), seeding.threshold)
            counts[name] = counts[name] + count(mask, labels(scores), num_classes)
    network.train(training)
    return {name: summed(fabric, total) for name, total in counts.items()}
