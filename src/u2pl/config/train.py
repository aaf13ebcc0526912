"""Keys of `train` and `evaluation`: optimisation, the machine, and how a whole image is scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from u2pl.config.fields import Auto, Range, Section, Side
from u2pl.structures import AtLeast0, Count, Positive, Share


class EvaluationConfig(Section):
    """How a whole image is scored."""

    protocol: Literal["whole", "sliding"] = "whole"
    """`whole`: the image at once; `sliding`: overlapping windows, averaged where they overlap"""
    window: Side = 769
    """side of a sliding window, pixels"""
    overlap: float = Field(0.33, ge=0, lt=1)
    """share of a window that the next one covers again, at least"""
    scales: Annotated[list[Annotated[float, Field(gt=0, le=4)]], Field(min_length=1)] = Field(default=[1.0])
    """the image is seen at these factors of its size, and the probabilities are averaged"""
    flip: bool = False
    """also see the mirror image at each scale"""
    tags: bool = True
    """`weak_u2pl`: a pixel's probability of a class, times the classifier's that the image shows it"""
    image_prior: float = Field(1.0, ge=0)
    """power of what the image shows as a whole, in runs with an image prior; 0: not asked"""


class TrainConfig(Section):
    """Optimisation and the machine."""

    steps: Auto[Positive] = 1000
    """optimiser steps"""
    epochs: float | None = Field(None, gt=0)
    """passes over the unlabeled images; sets the steps"""
    batch_size: Auto[Positive] = 8
    """labeled images per step of each process; as many unlabeled ones come on top"""
    crop_size: Auto[Side | Annotated[list[Side], Field(min_length=2, max_length=2)]] = 160
    """side of a training crop, pixels; or height, width"""
    scale_range: Auto[Range] = Field(default=[0.5, 2.0])
    """smallest and largest factor of the random resize before the crop"""
    flip: Share = 0.5
    """probability of a horizontal flip"""
    jitter: Auto[bool] = False
    """jitter brightness, contrast, saturation and hue of labeled images, too"""
    optimizer: Auto[Literal["sgd", "adamw"]] = "sgd"
    """the optimiser"""
    lr: Auto[Annotated[float, Field(gt=0)]] = 0.01
    """learning rate of the encoder"""
    head_lr_factor: Auto[Annotated[float, Field(gt=0)]] = 1.0
    """the heads learn at this multiple of `lr`"""
    layer_decay: Share | None = None
    """factor of the learning rate from each layer of a transformer to the one before"""
    momentum: Share = 0.9
    """of `sgd`"""
    weight_decay: Auto[AtLeast0] = 1e-4
    """of either optimiser"""
    power: float = Field(0.9, ge=0)
    """the learning rate falls as (1 - step / steps) to this power; 0: it stays"""
    lr_warmup: Auto[Count] = 0
    """steps over which the learning rate rises"""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bf16 where it is native, else fp32; fp16 needs a GPU"""
    channels_last: bool = True
    """memory layout of the network; usually faster"""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """what to train on"""
    devices: Positive = 1
    """devices of each machine, one process each"""
    nodes: Positive = 1
    """machines"""
    eval_every: Auto[Count] = 0
    """steps between validations; 0: only after the last step"""
    save_every: int = Field(200, ge=0)
    """steps between saves; 0: only after the last step"""
    log_every: Positive = 10
    """steps between lines of metrics"""
