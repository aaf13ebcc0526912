"""Keys of `train` and `evaluation`: optimisation, the machine, and the scoring of whole images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from u2pl.config.fields import Auto, Range, Section, Side
from u2pl.structures import Count, Factor, Positive, Share, Width


class EvaluationConfig(Section):
    """How a whole image is scored."""

    protocol: Literal["auto", "whole", "sliding"] = "auto"
    """`whole`: each image at once; `sliding`: overlapping windows, averaged; `auto`: whole if the memory allows it"""
    window: Side = 769
    """side of a sliding window in pixels"""
    overlap: float = Field(0.33, ge=0, le=0.95)
    """smallest share of a window that the next one covers again"""
    scales: Annotated[list[Factor], Field(min_length=1, max_length=32)] = Field(default=[1.0])
    """factors by which the image is resized; the probabilities at all sizes are averaged"""
    flip: bool = False
    """also average the probabilities of the mirror image at each scale"""
    tags: bool = True
    """with `weak_u2pl`, multiply a pixel's probabilities by the classifier's for the whole image"""
    image_prior: float = Field(1.0, ge=0, le=1000)
    """exponent of the image prior, in runs that have one; 0: not used"""


class TrainConfig(Section):
    """Optimisation and the machine."""

    steps: Auto[Annotated[int, Field(gt=0, le=100_000_000)]] = 1000
    """number of optimiser steps"""
    epochs: float | None = Field(None, gt=0, le=1e6)
    """passes over the unlabeled images, replaces `train.steps`; null: `train.steps` decides"""
    batch_size: Auto[Width] = 8
    """labeled images per step and process; semi-supervised methods add as many unlabeled ones"""
    crop_size: Auto[Side | Annotated[list[Side], Field(min_length=2, max_length=2)]] = 160
    """side of a training crop in pixels, or its height and width as a list"""
    scale_range: Auto[Range] = Field(default=[0.5, 2.0])
    """smallest and largest factor of the random resize before the crop"""
    flip: Share = 0.5
    """probability of a horizontal flip"""
    jitter: Auto[bool] = False
    """also jitter brightness, contrast, saturation and hue of labeled images"""
    optimizer: Auto[Literal["sgd", "adamw"]] = "sgd"
    """the optimiser: `sgd` or `adamw`"""
    lr: Auto[Annotated[float, Field(ge=1e-12, le=1e6)]] = 0.01
    """learning rate of the encoder"""
    head_lr_factor: Auto[Annotated[float, Field(ge=1e-6, le=1e6)]] = 1.0
    """factor of `train.lr` for the heads"""
    layer_decay: Share | None = None
    """factor of the learning rate from one transformer layer to the layer below; null: one rate for all"""
    momentum: float = Field(0.9, ge=0, lt=1)
    """momentum of `sgd`"""
    weight_decay: Auto[Annotated[float, Field(ge=0, le=100)]] = 1e-4
    """weight decay, for both optimisers"""
    power: float = Field(0.9, ge=0, le=100)
    """exponent of the learning rate decay, (1 - step / steps) ** power; 0: constant"""
    lr_warmup: Auto[Count] = 0
    """first steps, over which the learning rate rises linearly"""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """`auto`: bf16 if the processor supports it natively, else fp32, which is TF32 on a GPU; `fp16` needs a GPU"""
    compile: Auto[bool] = False
    """compile the networks, which takes minutes once and makes each step faster; `auto`: in long runs on a GPU"""
    channels_last: bool = True
    """store the network in the channels-last memory layout, which is usually faster"""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """device to train on: `auto`, `cpu`, `cuda` or `mps`"""
    devices: int = Field(1, gt=0, le=1024)
    """number of devices per machine, with one process each"""
    nodes: int = Field(1, gt=0, le=65_536)
    """number of machines"""
    sync_batch_norm: bool = True
    """with several processes, batch normalisation uses the images of all of them; false: each uses its own"""
    eval_every: Auto[Count] = 0
    """steps between validations; 0: only after the last step"""
    save_every: Count = 200
    """steps between saves; 0: only after the last step"""
    log_every: Positive = 10
    """steps between lines in `metrics.jsonl`"""
    tracker: Literal["tensorboard", "wandb", "mlflow", "none"] = "tensorboard"
    """where its curves are drawn: `tensorboard`, `wandb` (Weights & Biases), `mlflow` or `none`"""
