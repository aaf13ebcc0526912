"""The schema of a run. :mod:`u2pl.config.overrides` fills it from presets, YAML files and overrides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, StrictFloat, StrictInt

from u2pl.config.fields import AUTO, MAY_BE_AUTO, Auto, Names, Range, Section, Side
from u2pl.config.parts import (
    AlignmentSection,
    CamSection,
    ContrastSection,
    DenoisingSection,
    MixingSection,
    NegativeKeysSection,
    PrototypesSection,
    RareClassSection,
    ReliabilitySection,
    ScheduleSection,
    SupervisedSection,
    TeacherSection,
    UnsupervisedSection,
    WeightingSection,
)
from u2pl.methods import METHODS, Method
from u2pl.structures import AtLeast0, Count, Positive, Share

_Files = Literal["scenes", "folder", "pascal_voc", "cityscapes", "gta5", "synthia"]
_Labeled = Annotated[StrictInt | StrictFloat | int | float | str | None, Field(union_mode="left_to_right")]


class _DataKeys(Section):
    """What the readers of data sets are told."""

    name: Literal[_Files, "domain"] = "scenes"
    """how the files lie: see the layouts; `domain` is two data sets, `scenes` needs no files"""
    root: str | None = None
    """folder of the data set"""
    labeled: _Labeled = None
    """labeled training images: a count, a fraction (1.0 is all of them, 1 is one image) or a split file"""
    unlabeled: str | None = None
    """split file of the unlabeled images; null: the other training images"""
    val: int | str | None = None
    """validation images: a subfolder of `images`, or a split file; a number of scenes"""
    classes: Names | None = None
    """names of the classes to keep, in this order; pixels of others are ignored"""
    scale: float | None = Field(None, gt=0, le=4)
    """factor by which images and masks are resized when read"""
    train: Positive | None = None
    """number of training scenes, labeled and unlabeled; null: 500"""
    height: Positive | None = None
    """of a scene, pixels, at least 32; null: 96"""
    width: Positive | None = None
    """of a scene, pixels, at least 32; null: 128"""
    domain: Literal["day", "night", "fog"] | None = None
    """light of the scenes; null: day"""
    kind: Literal["street", "objects"] | None = None
    """what scenes show; null: street"""


class SourceConfig(_DataKeys):
    """The source domain: its labels train."""

    name: _Files = "folder"
    """how its files lie"""
    mapping: str | None = None
    """csv file with the header source,target: which class of the source is which of the target"""


class TargetConfig(_DataKeys):
    """The target domain: its images train without their masks; it is validated on."""

    name: _Files = "folder"
    """how its files lie"""


class DataConfig(_DataKeys):
    """Where images and masks come from."""

    source: SourceConfig | None = None
    """the labeled data set of a domain adaptation: a section with the keys above"""
    target: TargetConfig | None = None
    """the data set to adapt to and to validate on: a section with the keys above"""
    upper_bound: bool | None = None
    """true: train on the target's own labels instead, to compare with"""
    tags: str | None = None
    """classes that unlabeled images show: a csv file, xml, a folder of such files, or `masks`"""
    rare_class_sampling: RareClassSection | None = None
    """draw labeled images by class, rare classes more often (DAFormer); `true` or its keys"""
    cache: Auto[bool] = False
    """keep decoded images in memory"""
    workers: Auto[Count] = 1
    """loader processes; 0: load in the training process"""

    @property
    def val_scale(self) -> float:
        """Factor by which the images that are validated on, or predicted, are resized when read."""
        part = self.target if self.name == "domain" and self.target is not None else self
        return part.scale or 1.0


class NetworkConfig(Section):
    """The network, and where its encoder's weights come from. Unset keys are chosen by the network's builder."""

    name: Auto[Literal["deeplabv3plus", "smp"]] = "deeplabv3plus"
    """`deeplabv3plus` is the paper's; `smp` is any of segmentation_models_pytorch"""
    encoder: str = "resnet18"
    """resnet18, 34, 50 or 101; with `smp` any of its names, or `tu-` and a name of timm"""
    architecture: Auto[str | None] = None
    """of `smp`: Unet, FPN, Segformer, DPT, ...; null: Unet"""
    output_stride: Literal[8, 16, 32] | None = None
    """input pixels per pixel of the encoder's output; null: 16 for deeplabv3plus"""
    deep_stem: bool | None = None
    """three 3x3 convolutions in place of the 7x7 one; null: for resnet50 and resnet101"""
    multi_grid: list[int] | None = None
    """a factor of the dilation for each block of the last stage; null: 2, 2, 4 at output stride 8"""
    aspp_dilations: list[int] | None = None
    """of ASPP; null: 12, 24, 36 at output stride 8, else 6, 12, 18"""
    channels: Positive | None = None
    """width of the decoder; null: 256, with `smp` the architecture's"""
    low_level_channels: Positive | None = None
    """width of the low-level features; null: 256"""
    embedding_dim: Positive = 256
    """length of a pixel's embedding, for methods with a contrast"""
    auxiliary: bool | None = None
    """a second classifier on the third stage, in training only"""
    dropout: Share | None = None
    """probability of dropping a channel in the heads; null: 0.1"""
    mean: list[float] | None = Field(None, min_length=3, max_length=3)
    """RGB mean of images in 0 to 1; null: ImageNet's, or that of the weights"""
    std: Annotated[list[Annotated[float, Field(gt=0)]] | None, Field(min_length=3, max_length=3)] = None
    """RGB standard deviation, likewise"""
    pretrained: bool = False
    """fetch the encoder's published weights; needs a network connection once"""
    weights: str | None = None
    """local file of the encoder's weights (safetensors, pt, pth); wins over `pretrained`"""


class StrongViewsConfig(Section):
    """The strong views of unlabeled images, before they are mixed."""

    number: Literal[1, 2] = 1
    """strong views of each unlabeled image; `unimatch` always has two"""
    jitter: Auto[Literal["unlabeled", "mixed", "none"]] = "unlabeled"
    """which images get photometric jitter: `unlabeled` ones, `mixed` ones (pasted pixels, too), or none"""


class ImagePriorConfig(Section):
    """What images like an unlabeled one say of its classes. Not in the paper."""

    sharpness: Auto[AtLeast0] = 0.0
    """how much the prior says; 0: there is none, 8: where images differ in what they show"""


class LossWeights(Section):
    """The weight of each loss by its name. L_s weighs one."""

    unsupervised: AtLeast0 = 1.0
    """of L_u, beside its own weighting"""
    contrastive: AtLeast0 = 0.1
    """lambda_c, of L_c"""
    negative: AtLeast0 = 0.0
    """of negative learning: U2PL's idea without a memory bank; 0: off"""
    auxiliary: AtLeast0 = 0.4
    """of the auxiliary head's loss, for `network.auxiliary`"""
    classification: AtLeast0 = 1.0
    """of the loss of whole images by their tags, for `weak_u2pl`"""


class MethodConfig(Section):
    """The method and its parts. Parts that a method does not use are kept, so that a baseline is one override away."""

    name: Literal["supervised", "mean_teacher", "fixmatch", "unimatch", "u2pl", "weak_u2pl"] = "u2pl"
    """the training method"""
    threshold: Share = 0.95
    """confidence of a pseudo-label that `fixmatch` and `unimatch` believe"""
    feature_dropout: bool = False
    """UniMatch's further view in L_u: the unmixed image, half of its features dropped"""
    diagnose: bool = False
    """measure pseudo-labels, queues and gradients by masks that training never sees"""
    reliability: ReliabilitySection = ReliabilitySection()
    schedule: ScheduleSection = ScheduleSection()
    teacher: TeacherSection = TeacherSection()
    strong_views: StrongViewsConfig = StrongViewsConfig()
    mixing: MixingSection = MixingSection()
    supervised_loss: SupervisedSection = SupervisedSection()
    unsupervised_loss: UnsupervisedSection = UnsupervisedSection()
    weighting: WeightingSection = WeightingSection()
    negative_keys: NegativeKeysSection = NegativeKeysSection()
    contrast: ContrastSection | None = ContrastSection()
    """L_c with its memory bank; `false`: none, which makes `mean_teacher` of `u2pl`"""
    loss_weights: LossWeights = LossWeights()
    alignment: AlignmentSection | None = None
    """pseudo-labels become as frequent as labels; `true` or its keys"""
    image_prior: ImagePriorConfig = ImagePriorConfig()
    prototypes: PrototypesSection | None = None
    """positives of the contrast are class centres kept over training; `true` or its keys"""
    denoising: DenoisingSection | None = None
    """pseudo-labels by the distance to prototypes (ProDA); needs a contrast; `true` or its keys"""
    cam: CamSection = CamSection()

    @property
    def kind(self) -> type[Method]:
        """The class of the method, which says what it needs."""
        return METHODS[self.name]

    @property
    def trains_embeddings(self) -> bool:
        """Whether there is a contrast, so that the network needs a projection head."""
        return self.kind.has_contrast and self.contrast is not None

    @property
    def uses_negative_keys(self) -> bool:
        """Whether a loss asks which classes a pixel is sure not to be."""
        return self.trains_embeddings or (self.kind.has_teacher and self.loss_weights.negative > 0)

    @property
    def balances(self) -> bool:
        """Whether a teacher learns from labels and from pseudo-labels that weigh more where they are rare."""
        losses = self.supervised_loss.name, self.unsupervised_loss.name
        return self.kind.has_teacher and losses == ("balanced", "balanced")

    @property
    def strong_views_of_an_image(self) -> int:
        """V, which some methods are defined by."""
        return self.strong_views.number if self.kind.strong_views is None else self.kind.strong_views


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


class Config(Section):
    """A run, whole."""

    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(0, ge=0)
    """chooses labels, initial weights and every random draw"""

    def to_yaml(self) -> str:
        """Every key with its value."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)

    def value(self, key: str) -> Any:
        """The value of a key such as `method.reliability.alpha`; None in a part that is left out."""
        found: Any = self
        for name in key.split("."):
            found = None if found is None else getattr(found, name)
        return found

    def with_values(self, values: dict[str, Any]) -> Config:
        """A copy with other values of some keys, which are not checked."""
        copy: Any = self
        for key, value in values.items():
            copy = _replaced(copy, key.split("."), value)
        return copy

    def auto_keys(self) -> list[str]:
        """Those that are still `auto`, of the keys that may be, as `train.steps`."""
        return [key for key in may_be_auto() if self.value(key) == AUTO]


def may_be_auto() -> list[str]:
    """The keys that may be `auto` until the data and the machine are known, in the order of the schema."""
    return [key for key, field in all_keys() if any(marker is MAY_BE_AUTO for marker in field.metadata)]


def all_keys(section: type[BaseModel] = Config, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its field, as `train.steps`, in the order of the schema; an optional part, then its keys."""
    for name, field in section.model_fields.items():
        inner = section_in(field.annotation)
        if inner is None or type(None) in _options(field.annotation):
            yield above + name, field
        if (inner is not None and not issubclass(inner, _DataKeys)) or inner is DataConfig:
            yield from all_keys(inner, f"{above}{name}.")


def section_in(annotation: Any) -> type[Section] | None:
    """The section that a field is, perhaps an optional one; None for a value."""
    kinds = (kind for kind in _options(annotation) if isinstance(kind, type) and issubclass(kind, Section))
    return next(kinds, None)


def _options(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *getattr(annotation, "__args__", ()))


def _replaced(section: Any, path: list[str], value: Any) -> Any:
    name, *below = path
    inner = getattr(section, name)
    if below and inner is None:
        return section
    return section.model_copy(update={name: _replaced(inner, below, value) if below else value})
