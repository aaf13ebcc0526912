"""The schema of a run: YAML or a preset's name, then ``key=value`` overrides. A typo is an error that names the key."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    ValidationError,
)

from u2pl.errors import InputError

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
    std: list[float] | None = Field(None, min_length=3, max_length=3)
    pretrained: bool = False
    weights: str | None = None  #: local file of the encoder's weights


class MethodConfig(_Section):
    """The method and its parts. Options a method does not use are kept, so that a baseline is one override away."""

    name: Literal["supervised", "mean_teacher", "u2pl"] = "u2pl"
    loss: Literal["cross_entropy", "ohem"] = "cross_entropy"
    ohem_threshold: Share = 0.7
    ohem_min_kept: Positive = 100_000
    warmup: Share = 0.0  #: share of training that is supervised only
    ramp: Share = 0.0  #: share of training over which the unsupervised weight grows
    mixing: Literal["cutmix", "classmix", "cutout"] = "cutmix"
    alpha: Share = 0.20  #: alpha_0
    min_confidence: Share = 0.0
    max_lambda_u: float | None = Field(None, gt=0)
    ema_decay: Share = 0.99
    teacher_passes: Literal[1, 2] = 2
    unsupervised_weight: float = Field(1.0, ge=0)
    contrastive_weight: float = Field(0.1, ge=0)
    auxiliary_weight: float = Field(0.4, ge=0)
    low_rank: int | None = None  #: r_l
    high_rank: int | None = None  #: r_h
    min_probability: Share = 0.3  #: delta_p
    anchors: Positive = 50  #: M
    negatives: Positive = 256  #: N
    temperature: float = Field(0.5, gt=0)  #: tau
    bank_size: Positive = 30_000
    background_bank_size: Positive | None = None  #: of class 0
    keys_per_step: Positive = 1024


class TrainConfig(_Section):
    """Optimisation and the machine."""

    steps: Positive = 1000
    batch_size: Positive = 8  #: labeled images of a process; as many unlabeled
    crop_size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] = 160
    scale_range: Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ascending)] = [0.5, 2.0]
    flip: Share = 0.5
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.01, gt=0)  #: of the encoder
    head_lr_factor: float = Field(1.0, gt=0)
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
    seed: int = Field(0, ge=0)

    def to_yaml(self) -> str:
        """Every key with its value."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


def preset_names() -> list[str]:
    """The presets that come with the package."""
    folder = resources.files("u2pl") / "presets"
    return sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """YAML of a preset: what it sets beyond the defaults. Its first comment line says what it is for."""
    return (resources.files("u2pl") / "presets" / f"{name}.yaml").read_text()


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """A preset by name, or a YAML file, with ``section.key=value`` overrides.

    Raises InputError, one line that names the key, for whatever does not fit the schema.
    """
    tree = _read(source)
    for override in overrides:
        _set(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise InputError(_explain(error)) from error


def _read(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            text, where = path.read_text(), str(path)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "no text in UTF-8"
            raise InputError(f"{path} cannot be read ({why}); give a YAML file or a preset's name") from error
    elif str(source) in preset_names():
        text, where = preset_text(str(source)), f"preset {source}"
    else:
        raise InputError(f"no preset {str(source)!r}{_nearest(str(source), preset_names())}; `u2pl presets` lists them")
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{where} must hold sections such as `data:` and `train:`, not {type(tree).__name__}")
    return tree


def _set(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r} is no override; write key=value, such as train.steps=1000")
    *sections, leaf = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise InputError(f"{key}: {section} is a value, not a section")
    try:
        tree[leaf] = yaml.safe_load(text)
    except yaml.YAMLError:
        tree[leaf] = text


def _explain(error: ValidationError) -> str:
    errors = error.errors()
    same_key = [each for each in errors if each["loc"][:2] == errors[0]["loc"][:2]]
    first = max(same_key, key=lambda each: len(each["loc"]))  # the branch of a union that came furthest
    # A union reports one error per branch; the branch's name follows the key and is no part of it.
    path = [str(part) for part in first["loc"]]
    fields: Any = Config.model_fields
    key: list[str] = []
    for part in path:
        if key and not isinstance(fields, dict):
            break
        key.append(part)
        info = fields.get(part)
        nested = getattr(info, "annotation", None)
        if info is None or not (isinstance(nested, type) and issubclass(nested, BaseModel)):
            break
        fields = nested.model_fields
    name = ".".join(key)
    if first["type"] in ("extra_forbidden", "invalid_key"):
        return f"unknown key {name}{_nearest(key[-1], list(fields))}"
    reason = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{name}: should be {reason}, not {first['input']!r}"


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(known)})"
