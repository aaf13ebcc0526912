"""The schema of a run. :mod:`u2pl.config.overrides` fills it from presets, YAML files and overrides."""

from __future__ import annotations

from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, Field, StrictFloat, StrictInt

from u2pl.config.fields import AUTO, MAY_BE_AUTO, Auto, Count, Names, Positive, Range, Rate, Section, Share, Side

_Files = Literal["scenes", "folder", "pascal_voc", "cityscapes", "gta5", "synthia"]


class _DataKeys(Section):
    """What the readers of data sets are told."""

    name: Literal[_Files, "domain"] = "scenes"
    root: str | None = None  #: folder of the data set
    #: a count, a fraction (1.0 is all of them, 1 is one image), or a split file; numbers may come as text
    labeled: Annotated[StrictInt | StrictFloat | int | float | str | None, Field(union_mode="left_to_right")] = None
    unlabeled: str | None = None  #: split file (pascal_voc, cityscapes, gta5, synthia)
    val: int | str | None = None  #: subfolder or split file; a number of scenes
    classes: Names | None = None  #: keep these classes by name
    scale: float | None = Field(None, gt=0, le=4)  #: images and masks are resized by this factor when read
    train: Positive | None = None  #: number of training scenes
    height: Positive | None = None  #: of a scene, pixels
    width: Positive | None = None
    domain: Literal["day", "night", "fog"] | None = None  #: light of the scenes
    kind: Literal["street", "objects"] | None = None  #: what the scenes show


class SourceConfig(_DataKeys):
    """The source domain: its labels train."""

    name: _Files = "folder"
    mapping: str | None = None  #: csv file, source class -> target class


class TargetConfig(_DataKeys):
    """The target domain: its images train without their masks; it is validated on."""

    name: _Files = "folder"


class DataConfig(_DataKeys):
    """Where images and masks come from."""

    source: SourceConfig | None = None  #: of the domain adaptation
    target: TargetConfig | None = None
    upper_bound: bool | None = None  #: train on the target's own labels, to compare with
    tags: str | None = None  #: classes of the unlabeled images: a csv file, xml, a folder of such files, or masks
    rare_class_sampling: bool = False  #: draw labeled images by class, rare classes more often (DAFormer)
    rare_class_temperature: float = Field(0.01, gt=0)
    cache: Auto[bool] = False  #: keep decoded images in memory
    workers: Auto[Count] = 1  #: loader processes

    @property
    def val_scale(self) -> float:
        """Factor by which the images that are validated on, or predicted, are resized when read."""
        part = self.target if self.name == "domain" and self.target is not None else self
        return part.scale or 1.0


class NetworkConfig(Section):
    """The network, and where its encoder's weights come from. Unset keys are chosen by the network's builder."""

    name: Auto[Literal["deeplabv3plus", "smp"]] = "deeplabv3plus"
    encoder: str = "resnet18"
    architecture: Auto[str | None] = None  #: of segmentation_models_pytorch
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


class MethodConfig(Section):
    """The method and its parts. Options a method does not use are kept, so that a baseline is one override away."""

    name: Literal["supervised", "mean_teacher", "fixmatch", "unimatch", "u2pl", "weak_u2pl"] = "u2pl"
    loss: Auto[Literal["cross_entropy", "ohem", "balanced"]] = "cross_entropy"
    unsupervised_loss: Auto[Literal["cross_entropy", "balanced"]] = "cross_entropy"
    ohem_threshold: Share = 0.7
    ohem_min_kept: Positive = 100_000
    warmup: Auto[Share] = 0.0  #: share of training that is supervised only
    ramp: Auto[Share] = 0.0  #: share of training over which the unsupervised weight grows
    mixing: Auto[Literal["cutmix", "classmix", "cutout", "ael", "cross_domain", "none"]] = "cutmix"
    strong_view: bool = True  #: photometric jitter of the unlabeled images the student sees
    jitter: Auto[Literal["unlabeled", "mixed"]] = "unlabeled"  #: which images strong_view jitters
    views: Literal[1, 2] = 1  #: strong views of each unlabeled image
    feature_dropout: bool = False  #: UniMatch's third view, perturbed in feature space
    threshold: Share = 0.95  #: confidence of a pseudo-label that fixmatch and unimatch believe
    alpha: Share = 0.20  #: alpha_0
    dynamic_partition: bool = True  #: alpha falls from alpha_0 to 0; else it stays
    class_wise: bool = False  #: gamma_t is a quantile of each pseudo-class
    min_confidence: Auto[Share] = 0.0  #: floor of a reliable pixel
    max_lambda_u: float | None = Field(None, gt=0)
    align: bool = False  #: distribution alignment of pseudo-labels
    #: sharpness of what images like an unlabeled one say of its classes
    image_prior: Auto[Annotated[float, Field(ge=0)]] = 0.0
    denoise: bool = False  #: prototypical denoising of pseudo-labels
    denoise_temperature: float = Field(1.0, gt=0)
    symmetric: float = Field(0.0, ge=0)  #: lambda_rce of a symmetric cross-entropy in L_u
    ema_decay: Auto[Share] = 0.99
    teacher_passes: Literal[1, 2] = 2
    unsupervised_weight: float = Field(1.0, ge=0)
    unsupervised_weighting: Auto[Literal["lambda_u", "reliable_share", "confident_share"]] = "lambda_u"
    contrast: bool = True  #: the contrastive term of u2pl
    contrastive_weight: float = Field(0.1, ge=0)
    negative_weight: float = Field(0.0, ge=0)  #: of negative learning, in the space of logits
    auxiliary_weight: float = Field(0.4, ge=0)
    negatives_from: Literal["unreliable", "reliable", "all"] = "unreliable"
    rank_threshold: bool = True  #: else r_l = 1, r_h = C
    low_rank: Auto[int | None] = None  #: r_l
    high_rank: Auto[int | None] = None  #: r_h
    min_probability: Share = 0.3  #: delta_p
    anchors: Positive = 50  #: M
    negatives: Positive = 256  #: N
    temperature: float = Field(0.5, gt=0)  #: tau
    prototypes: bool = False  #: momentum prototypes are the positives
    bank_size: Auto[Positive] = 30_000
    background_bank_size: Positive | None = None  #: of class 0
    keys_per_step: Auto[Positive] = 1024
    cam_warmup: Share = 0.3  #: share of training in which the tags train a classifier alone
    classification_weight: float = Field(1.0, ge=0)
    cam_scales: Annotated[list[Annotated[float, Field(gt=0, le=4)]], Field(min_length=1)] = [0.5, 1.0, 1.5]
    cam_flip: bool = True  #: the teacher's classifier also looks at the mirror image
    cam_stride: Positive = 4  #: maps are refined at this share of the resolution
    cam_high: Share = 0.55  #: a map of at least this is foreground
    cam_low: Share = 0.25  #: maps of at most this are background
    pamr_iterations: int = Field(10, ge=0)
    pamr_dilations: list[Positive] = [1, 2, 4, 8]
    seed_share: Share = 0.5  #: of the teacher's segmentation in the seeds, after the warm-up
    tag_negatives: bool = True  #: every pixel is a negative of the classes that its image is not tagged with
    diagnose: bool = False  #: measure pseudo-labels, queues and gradients by masks that training never sees


class EvaluationConfig(Section):
    """How a whole image is scored."""

    protocol: Literal["whole", "sliding"] = "whole"
    window: Side = 769  #: side of a sliding window, pixels
    overlap: float = Field(0.33, ge=0, lt=1)  #: share of a window that the next covers again, at least
    scales: Annotated[list[Annotated[float, Field(gt=0, le=4)]], Field(min_length=1)] = [1.0]  #: of the image
    flip: bool = False  #: also the mirror image
    tags: bool = True  #: class scores fall where the classification head, if there is one, does not see the class
    image_prior: float = Field(1.0, ge=0)  #: power of what the image shows as a whole, in runs with a prior of images


class TrainConfig(Section):
    """Optimisation and the machine."""

    steps: Auto[Positive] = 1000
    epochs: float | None = Field(None, gt=0)  #: passes over the unlabeled images; sets the steps
    batch_size: Auto[Positive] = 8  #: labeled images of a process; as many unlabeled
    crop_size: Auto[Side | Annotated[list[Side], Field(min_length=2, max_length=2)]] = 160
    scale_range: Auto[Range] = [0.5, 2.0]
    flip: Share = 0.5
    jitter: Auto[bool] = False  #: brightness, contrast, saturation and hue of labeled images
    optimizer: Auto[Literal["sgd", "adamw"]] = "sgd"
    lr: Auto[Rate] = 0.01  #: of the encoder
    head_lr_factor: Auto[Rate] = 1.0
    layer_decay: Share | None = None  #: of the learning rate, from each layer of a transformer to the one before
    momentum: Share = 0.9
    weight_decay: Auto[Annotated[float, Field(ge=0)]] = 1e-4
    power: float = Field(0.9, ge=0)  #: of the poly schedule
    lr_warmup: Auto[Count] = 0  #: steps over which the learning rate rises
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    channels_last: bool = True
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Positive = 1
    nodes: Positive = 1
    eval_every: Auto[Count] = 0  #: steps; 0: after the last alone
    save_every: int = Field(200, ge=0)
    log_every: Positive = 10


class Config(Section):
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

    def auto_keys(self) -> list[str]:
        """Those that are still `auto`, of the keys that may be, as `train.steps`."""
        values = self.model_dump()
        return [key for key in may_be_auto() for section, name in [key.split(".")] if values[section][name] == AUTO]


def may_be_auto() -> list[str]:
    """The keys that may be `auto` until the data and the machine are known, in the order of the schema."""
    sections = ((name, type(value)) for name, value in Config() if isinstance(value, BaseModel))
    return [
        f"{name}.{key}"
        for name, section in sections
        for key, field in section.model_fields.items()
        if any(marker is MAY_BE_AUTO for marker in field.metadata)
    ]
