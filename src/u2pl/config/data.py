"""Keys of `data`: where images and masks come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictFloat, StrictInt

from u2pl.config.fields import A_PATH, Auto, Names, Section
from u2pl.config.parts import RareClassSection
from u2pl.structures import Factor, Share

_MOST_SCENES = 1_000_000
_Files = Literal["scenes", "folder", "pascal_voc", "cityscapes", "gta5", "synthia"]
_Labeled = Annotated[StrictInt | StrictFloat | int | float | str | None, Field(union_mode="left_to_right"), A_PATH]


def _two(values: list[float]) -> list[float]:
    if not values[0] < values[1]:
        raise ValueError("two numbers, the smaller first")
    return values


def _one_or_three(values: list[int]) -> list[int]:
    if len(values) == 2:
        raise ValueError("one band or three")
    return values


def _few(value: float | str | None) -> float | str | None:
    if isinstance(value, int) and value > _MOST_SCENES:
        raise ValueError(f"at most {_MOST_SCENES}")
    return value


_Scenes = Annotated[int, Field(gt=0, le=_MOST_SCENES)]
_Pixels = Annotated[int, Field(gt=0, le=4096)]


class DataKeys(Section):
    """Keys of one data set."""

    name: Literal[_Files, "domain"] = "scenes"
    """`folder`, `pascal_voc`, `cityscapes`, `gta5`, `synthia`, `scenes` (generated) or `domain` (two data sets)"""
    root: Annotated[str | None, A_PATH] = None
    """folder of the data set; required unless `data.name` is `scenes` or `domain`"""
    labeled: _Labeled = None
    """labeled training images: a count, a fraction (1.0: all, 1: one image) or a split file; null: all with masks"""
    unlabeled: Annotated[str | None, A_PATH] = None
    """split file of the unlabeled images; null: all other training images"""
    val: Annotated[int | StrictFloat | str | None, A_PATH, AfterValidator(_few)] = None
    """validation images: a subfolder of `images`, a split file, a share or count of the labels; null: by the layout"""
    groups: Annotated[str | None, A_PATH] = None
    """csv file with the header `image,group`: `data.val` and intervals draw whole groups; null: runs of video frames"""
    classes: Names | None = None
    """names of the classes to keep, in this order; pixels of other classes are ignored; null: all classes"""
    mask_values: Annotated[str | None, Field(max_length=65_536)] = None
    """classes of mask values or colours: a csv file, `0:background,255:crack` or `#804080:road,#000000:ignore`"""
    mask_pattern: str | None = None
    """name of a mask without its ending, from the `{stem}` or `{name}` of its image: `{stem}_mask`; null: `{stem}`"""
    resize_masks: bool | None = None
    """resize masks of another size to their images, by the nearest pixel; null: such a mask is an error"""
    bands: (
        Annotated[
            list[Annotated[int, Field(ge=0, le=1000)]], Field(min_length=1, max_length=3), AfterValidator(_one_or_three)
        ]
        | None
    ) = None
    """bands of a file that are red, green and blue, from 0: `[0,1,2]`, or one for gray; null: as the file says"""
    value_range: Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_two)] | None = None
    """values of black and white in images of more than 8 bits, such as `[0,4095]`; null: such an image is an error"""
    scale: Factor | None = None
    """factor by which images and masks are resized when read; null: 1"""
    train: _Scenes | None = None
    """number of training scenes, labeled and unlabeled; null: 500"""
    height: _Pixels | None = None
    """height of a scene in pixels, at least 32; null: 96"""
    width: _Pixels | None = None
    """width of a scene in pixels, at least 32; null: 128"""
    domain: Literal["day", "night", "fog"] | None = None
    """lighting of the scenes; null: day"""
    kind: Literal["street", "objects"] | None = None
    """content of the scenes; null: street"""


class SourceConfig(DataKeys):
    """The source domain. Its labels train."""

    name: _Files = "folder"
    """file layout of the source data set"""
    mapping: Annotated[str | None, A_PATH] = None
    """csv file with the header `source,target` that maps source classes to target classes; null: match names"""


class TargetConfig(DataKeys):
    """The target domain. Its images train, without masks unless `labeled` is set, and it is validated on."""

    name: _Files = "folder"
    """file layout of the target data set"""
    labeled: _Labeled = None
    """labeled images of the target, which are half of each labeled batch: as `data.labeled`; null: none"""


class DataConfig(DataKeys):
    """Where images and masks come from."""

    source: SourceConfig | None = None
    """labeled data set for domain adaptation, a section with the keys above; null: none"""
    target: TargetConfig | None = None
    """data set to adapt to and to validate on, a section with the keys above; null: none"""
    upper_bound: bool | None = None
    """true: train on the target's own labels, as an upper bound to compare with; null: false"""
    tags: Annotated[str | None, A_PATH] = None
    """tags of unlabeled images: a csv file, `xml`, a folder of xml files, or `masks`; null: no tags"""
    pseudo_masks: Annotated[str | None, A_PATH] = None
    """folder of pseudo-masks of all unlabeled images, which `u2pl distill` writes and trains on; null: none"""
    pseudo_share: Share | None = None
    """share of pseudo-labeled images among the labeled ones of a step, with `data.pseudo_masks`; null: 0.5"""
    rare_class_sampling: RareClassSection | None = None
    """draw labeled images by class, rare classes more often (DAFormer); `true` or its keys; null: off"""
    cache: Auto[bool] = False
    """keep decoded images in memory"""
    workers: Auto[Annotated[int, Field(ge=0, le=256)]] = 1
    """number of loader processes; 0: load in the training process"""
    timeout: Annotated[int, Field(ge=1, le=86_400)] = 300
    """seconds to wait for images from a loader process, before the run ends with an error"""

    @property
    def validated(self) -> DataKeys:
        """The keys of the data set that is validated on: with two domains, the target's."""
        return self.target if self.name == "domain" and self.target is not None else self

    @property
    def val_scale(self) -> float:
        """Factor by which images for validation or prediction are resized when read."""
        return self.validated.scale or 1.0
