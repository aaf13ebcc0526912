"""Keys of `data`: where images and masks come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictFloat, StrictInt

from u2pl.config.fields import Auto, Names, Section
from u2pl.config.parts import RareClassSection
from u2pl.structures import Count, Positive

_Files = Literal["scenes", "folder", "pascal_voc", "cityscapes", "gta5", "synthia"]
_Labeled = Annotated[StrictInt | StrictFloat | int | float | str | None, Field(union_mode="left_to_right")]


class DataKeys(Section):
    """Keys of one data set."""

    name: Literal[_Files, "domain"] = "scenes"
    """`folder`, `pascal_voc`, `cityscapes`, `gta5`, `synthia`, `scenes` (generated) or `domain` (two data sets)"""
    root: str | None = None
    """folder of the data set; required unless `data.name` is `scenes` or `domain`"""
    labeled: _Labeled = None
    """labeled training images: a count, a fraction (1.0: all, 1: one image) or a split file; null: all with masks"""
    unlabeled: str | None = None
    """split file of the unlabeled images; null: all other training images"""
    val: int | str | None = None
    """validation images: a subfolder of `images`, a split file or a number of scenes; null: set by the layout"""
    classes: Names | None = None
    """names of the classes to keep, in this order; pixels of other classes are ignored; null: all classes"""
    mask_values: str | None = None
    """classes of mask values or colours: a csv file, `0:background,255:crack` or `#804080:road,#000000:ignore`"""
    scale: float | None = Field(None, gt=0, le=4)
    """factor by which images and masks are resized when read; null: 1"""
    train: Positive | None = None
    """number of training scenes, labeled and unlabeled; null: 500"""
    height: Positive | None = None
    """height of a scene in pixels, at least 32; null: 96"""
    width: Positive | None = None
    """width of a scene in pixels, at least 32; null: 128"""
    domain: Literal["day", "night", "fog"] | None = None
    """lighting of the scenes; null: day"""
    kind: Literal["street", "objects"] | None = None
    """content of the scenes; null: street"""


class SourceConfig(DataKeys):
    """The source domain. Its labels train."""

    name: _Files = "folder"
    """file layout of the source data set"""
    mapping: str | None = None
    """csv file with the header `source,target` that maps source classes to target classes; null: match names"""


class TargetConfig(DataKeys):
    """The target domain. Its images train without their masks, and it is validated on."""

    name: _Files = "folder"
    """file layout of the target data set"""


class DataConfig(DataKeys):
    """Where images and masks come from."""

    source: SourceConfig | None = None
    """labeled data set for domain adaptation, a section with the keys above; null: none"""
    target: TargetConfig | None = None
    """data set to adapt to and to validate on, a section with the keys above; null: none"""
    upper_bound: bool | None = None
    """true: train on the target's own labels, as an upper bound to compare with; null: false"""
    tags: str | None = None
    """tags of unlabeled images: a csv file, `xml`, a folder of xml files, or `masks`; null: no tags"""
    rare_class_sampling: RareClassSection | None = None
    """draw labeled images by class, rare classes more often (DAFormer); `true` or its keys; null: off"""
    cache: Auto[bool] = False
    """keep decoded images in memory"""
    workers: Auto[Count] = 1
    """number of loader processes; 0: load in the training process"""

    @property
    def val_scale(self) -> float:
        """Factor by which images for validation or prediction are resized when read."""
        part = self.target if self.name == "domain" and self.target is not None else self
        return part.scale or 1.0
