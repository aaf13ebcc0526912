"""Crops as bytes -> the views of a step, on the device that they are on."""

from __future__ import annotations

import torch
from torch import Tensor

from u2pl.pixels.jitter import jittered
from u2pl.structures import Batch, Crops, Jitter


def views_of(crops: Crops) -> Batch:
    """The batch of a step: images as float32, labels as int64, and jittered views. No number is read back."""
    image = as_float(crops.image)
    if crops.image_jitter is not None:
        image = jittered(image, Jitter(crops.image_jitter))
    label = crops.label.long()
    if crops.unlabeled is None:
        return Batch(image, label)
    weak = as_float(crops.unlabeled)
    strong = [weak] * crops.strong_views
    if crops.strong_jitter is not None:
        rows = crops.strong_jitter.chunk(crops.strong_views)
        strong = [jittered(weak, Jitter(values)) for values in rows]
    return Batch(
        image,
        label,
        weak,
        strong[0],
        crops.valid,
        strong_2=strong[1] if len(strong) > 1 else None,
        truth=None if crops.truth is None else crops.truth.long(),
        tags=crops.tags,
        tagged=crops.tagged,
        prior=crops.prior,
    )


def as_float(image: Tensor) -> Tensor:
    """(..., 3, H, W) uint8 -> contiguous float32 in [0, 1]. What is float stays as it is."""
    if image.is_floating_point():
        return image
    return torch.empty(image.shape, device=image.device).copy_(image).div_(255)
