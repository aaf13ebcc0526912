"""The forward passes of a step: which images a network gets, and the parts of its output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from u2pl.methods.strong_views import MixedViews
from u2pl.structures import Batch, SegmentationOutput

Network = Callable[..., SegmentationOutput]  #: images (B_1, 3, H, W), (B_2, 3, H, W), ... -> output for all of them


def joined(*images: Tensor) -> Tensor:
    """One tensor of several batches of images."""
    return torch.cat(images)


def teacher_pass(teacher: Network, batch: Batch, *, labeled: bool = False) -> SegmentationOutput:
    """The teacher's output for the weak images. With ``labeled`` the labeled images come before them."""
    weak, _ = batch.unlabeled_views()
    if not labeled:
        return teacher(weak)
    if batch.seeded:  # the labeled images include the weak ones: one pass is enough
        output = teacher(batch.image)
        return SegmentationOutput.cat([output, output[len(batch.image) - len(weak) :]])
    return teacher(batch.image, weak)


@dataclass(frozen=True, slots=True)
class StudentOutput:
    """The student's output for labeled images, mixed images and, optionally, weak images with dropped features."""

    whole: SegmentationOutput
    labeled_images: int
    mixed_images: int

    @property
    def labeled(self) -> SegmentationOutput:
        """The output for the labeled images."""
        return self.whole[: self.labeled_images]

    @property
    def mixed(self) -> SegmentationOutput:
        """The output for the mixed images."""
        return self.whole[self.labeled_images :][: self.mixed_images]

    @property
    def labeled_and_mixed(self) -> SegmentationOutput:
        """The output for both, labeled images first."""
        return self.whole[: self.labeled_images + self.mixed_images]


def student_pass(
    student: nn.Module, batch: Batch, mixed: MixedViews, *, dropped: bool = False, join: Callable[..., Any] = joined
) -> StudentOutput:
    """One forward pass over labeled and mixed images.

    Args:
        dropped: the weak images follow twice: unchanged, and with half of their features dropped.
        join: several batches of images -> what the student gets; see :meth:`u2pl.methods.ema.EmaTeacher.joined`.
    """
    if dropped:
        weak, _ = batch.unlabeled_views()
        output = student(join(batch.image, mixed.image, weak), dropped=len(weak))
    elif mixed.complementary:
        output = student(join(batch.image, mixed.image), complementary=len(mixed.image) // 2)
    else:
        output = student(join(batch.image, mixed.image))
    return StudentOutput(output, len(batch.image), len(mixed.image))


def further_pass(student: nn.Module, image: Tensor, *, join: Callable[..., Any] = joined) -> SegmentationOutput:
    """The student's output for further images (B, 3, H, W), in a pass of their own.

    Batch normalisations use the statistics of these images, but do not remember them.
    """
    with without_remembering(student):
        return student(join(image))


@contextmanager
def without_remembering(network: nn.Module) -> Iterator[None]:
    """Let the batch normalisations of a network in training leave their running statistics as they are."""
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    following = [layer for layer in layers if layer.training and layer.track_running_stats]
    for layer in following:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in following:
            layer.track_running_stats = True


@contextmanager
def without_dropout(network: nn.Module) -> Iterator[None]:
    """Let the layers of a network drop nothing: neither numbers nor channels nor whole branches."""
    dropping = [layer for layer in network.modules() if isinstance(layer, (_DropoutNd, DropPath)) and layer.training]
    for layer in dropping:
        layer.training = False
    try:
        yield
    finally:
        for layer in dropping:
            layer.training = True
