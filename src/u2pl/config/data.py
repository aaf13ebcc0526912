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


class SourceConfig(DataKeys):
    """The source domain: its labels train."""

    name: _Files = "folder"
    """how its files lie"""
    mapping: str | None = None
    """csv file with the header source,target: which class of the source is which of the target"""


class TargetConfig(DataKeys):
    """The target domain: its images train without their masks; it is validated on."""

    name: _Files = "folder"
    """how its files lie"""


class DataConfig(DataKeys):
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
