"""The schema of a run. :mod:`u2pl.recipes` fills it from presets, YAML files and overrides."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    ValidationInfo,
    field_validator,
)

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Side = Annotated[int, Field(ge=16)]


def _names(value: Any) -> Any:
    """``background,cat`` on the command line is a list of names."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _ascending(value: list[float]) -> list[float]:
    if not 0 < value[0] <= value[1]:
        raise ValueError("two positive numbers, the smaller first")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        """``true`` is not 1, though Python counts with it."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
            raise ValueError("another kind of value than a switch")
        return value


class DataConfig(_Section):
    """Where images and masks come from."""

    name: Literal["scenes", "folder", "pascal_voc", "cityscapes"] = "scenes"
    root: str | None = None  #: folder of the data set
    #: a count, a fraction (1.0 is all of them, 1 is one image), or a split file; numbers may come as text
    labeled: Annotated[StrictInt | StrictFloat | int | float | str | None, Field(union_mode="left_to_right")] = None
    unlabeled: str | None = None  #: split file (pascal_voc, cityscapes)
    val: int | str | None = None  #: subfolder or split file; a number of scenes
    classes: Annotated[list[str] | None, BeforeValidator(_names)] = None  #: keep these classes by name
    scale: float | None = Field(None, gt=0, le=4)  #: images and masks are resized by this factor when read
    train: Positive | None = None  #: number of training scenes
    height: Positive | None = None  #: of a scene, pixels
    width: Positive | None = None
    cache: bool = False  #: keep decoded images in memory
    workers: int = Field(1, ge=0)  #: loader processes


class NetworkConfig(_Section):
    """The network, and where its encoder's weights come from. Unset keys are chosen by the network's builder."""

    name: Literal["deeplabv3plus", "smp"] = "deeplabv3plus"
    encoder: str = "resnet18"
    architecture: str | None = None  #: of segmentation_models_pytorch
    output_stride: Literal[8, 16, 32] | None = None
    deep_stem: bool | None = None
    multi_grid: list[int] | None = None
    aspp_dilations: list[int] | None = None
    channels: Positive | None = None
    low_level_channels: Positive | None = None
    embedding_dim: Positive = 256
    auxiliary: bool | None = None
    dropout: Share | None = None
    mean: list[float] | None = Field(None, min_length=3, max_length=3)
    std: Annotated[list[Annotated[float, Field(gt=0)]] | None, Field(min_length=3, max_length=3)] = None
    pretrained: bool = False
    weights: str | None = None  #: local file of the encoder's weights


class MethodConfig(_Section):
    """The method and its parts. Options a method does not use are kept, so that a baseline is one override away."""

    name: Literal["supervised", "mean_teacher", "fixmatch", "unimatch", "u2pl"] = "u2pl"
    loss: Literal["cross_entropy", "ohem"] = "cross_entropy"
    ohem_threshold: Share = 0.7
    ohem_min_kept: Positive = 100_000
    warmup: Share = 0.0  #: share of training that is supervised only
    ramp: Share = 0.0  #: share of training over which the unsupervised weight grows
    mixing: Literal["cutmix", "classmix", "cutout", "ael", "none"] = "cutmix"
    strong_view: bool = True  #: photometric jitter of the unlabeled images the student sees
    views: Literal[1, 2] = 1  #: strong views of each unlabeled image
    feature_dropout: bool = False  #: UniMatch's third view, perturbed in feature space
    threshold: Share = 0.95  #: confidence of a pseudo-label that fixmatch and unimatch believe
    alpha: Share = 0.20  #: alpha_0
    dynamic_partition: bool = True  #: alpha falls from alpha_0 to 0; else it stays
    class_wise: bool = False  #: gamma_t is a quantile of each pseudo-class
    min_confidence: Share = 0.0
    max_lambda_u: float | None = Field(None, gt=0)
    align: bool = False  #: distribution alignment of pseudo-labels
    denoise: bool = False  #: prototypical denoising of pseudo-labels
    denoise_temperature: float = Field(1.0, gt=0)
    symmetric: float = Field(0.0, ge=0)  #: lambda_rce of a symmetric cross-entropy in L_u
    ema_decay: Share = 0.99
    teacher_passes: Literal[1, 2] = 2
    unsupervised_weight: float = Field(1.0, ge=0)
    contrast: bool = True  #: the contrastive term of u2pl
    contrastive_weight: float = Field(0.1, ge=0)
    negative_weight: float = Field(0.0, ge=0)  #: of negative learning, in the space of logits
    auxiliary_weight: float = Field(0.4, ge=0)
    negatives_from: Literal["unreliable", "reliable", "all"] = "unreliable"
    rank_threshold: bool = True  #: else r_l = 1, r_h = C
    low_rank: int | None = None  #: r_l
    high_rank: int | None = None  #: r_h
    min_probability: Share = 0.3  #: delta_p
    anchors: Positive = 50  #: M
    negatives: Positive = 256  #: N
    temperature: float = Field(0.5, gt=0)  #: tau
    prototypes: bool = False  #: momentum prototypes are the positives
    bank_size: Positive = 30_000
    background_bank_size: Positive | None = None  #: of class 0
    keys_per_step: Positive = 1024
    diagnose: bool = False  #: measure pseudo-labels, queues and gradients by masks that training never sees


class EvaluationConfig(_Section):
    """How a whole image is scored."""

    protocol: Literal["whole", "sliding"] = "whole"
    window: Side = 769  #: side of a sliding window, pixels
    overlap: float = Field(0.33, ge=0, lt=1)  #: share of a window that the next covers again, at least
    scales: Annotated[list[Annotated[float, Field(gt=0, le=4)]], Field(min_length=1)] = [1.0]  #: of the image
    flip: bool = False  #: also the mirror image


class TrainConfig(_Section):
    """Optimisation and the machine."""

    steps: Positive = 1000
    epochs: float | None = Field(None, gt=0)  #: passes over the unlabeled images; sets the steps
    batch_size: Positive = 8  #: labeled images of a process; as many unlabeled
    crop_size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] = 160
    scale_range: Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ascending)] = [0.5, 2.0]
    flip: Share = 0.5
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.01, gt=0)  #: of the encoder
    head_lr_factor: float = Field(1.0, gt=0)
    layer_decay: Share | None = None  #: of the learning rate, from each layer of a transformer to the one before
    momentum: Share = 0.9
    weight_decay: float = Field(1e-4, ge=0)
    power: float = Field(0.9, ge=0)  #: of the poly schedule
    lr_warmup: int = Field(0, ge=0)  #: steps over which the learning rate rises
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    channels_last: bool = True
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Positive = 1
    nodes: Positive = 1
    eval_every: int = Field(0, ge=0)  #: steps; 0: after the last alone
    save_every: int = Field(200, ge=0)
    log_every: Positive = 10


class Config(_Section):
    """A run, whole."""

    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(0, ge=0)

    def to_yaml(self) -> str:
        """Every key with its value."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)
