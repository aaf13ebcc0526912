"""A trained network as a module that can leave u2pl: images of any size -> class scores of that size, and no more."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shapes

from u2pl.engine.inference import Tagged, Whole
from u2pl.networks.adapter import SmpNetwork
from u2pl.networks.encoded import Encoded
from u2pl.networks.padding import pad_traced
from u2pl.networks.same_padding import ConstantSame

_EXAMPLE = (70, 101)  # sides of the traced image: multiples of nothing
_FINEST = 1000  # largest denominator of a scale


class Exported(nn.Module):
    """The network with all that surrounds it in one pass: resizing, colours, padding, cropping, resizing back.

    An image prior, mirroring, several scales and windows are not in it.

    Args:
        network: trained; returns a :class:`~u2pl.structures.SegmentationOutput`.
        scale: images are resized by this factor first, and scores are resized back.
        tags: use the network's classification head, if it has one.
    """

    def __init__(self, network: nn.Module, *, scale: float = 1.0, tags: bool = True) -> None:
        super().__init__()
        network = copy.deepcopy(network).eval()
        if isinstance(network, SmpNetwork):  # it pads to a multiple of every stride
            ConstantSame.adopt(network)
        self.network = network
        self.scale = Fraction(scale).limit_denominator(_FINEST)
        self.segment = Tagged(network) if tags else Whole(network)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) float32 in [0, 1] -> class scores (B, C, H, W) float32, whose softmax is the prediction."""
        size = image.shape[-2:]
        if self.scale != 1:
            sides = [_scaled(side, self.scale) for side in size]
            image = F.interpolate(image, size=sides, mode="bilinear", antialias=True)
        scores = self.segment(_encoded(self.network, image))  # type: ignore[arg-type]  # it takes what `encode` makes
        return scores if self.scale == 1 else F.interpolate(scores, size=size, mode="bilinear")


def _encoded(network: nn.Module, image: Tensor) -> Encoded | Tensor:
    """As the network's own ``encode``, without a branch on the size."""
    if not isinstance(network, SmpNetwork):
        return image
    padded = pad_traced(network.normalize(image), multiple=network.multiple, minimum=network.minimum)
    return Encoded(network.encoder(padded), size=image.shape[-2:], padded=padded.shape[-2:])


def _scaled(side: Any, scale: Fraction) -> Any:
    """``max(1, round(side * scale))``, halves to even numbers, in integers: a side may be a symbol."""
    twice = 2 * scale.denominator
    doubled = 2 * side * scale.numerator + scale.denominator
    rounded, is_half = doubled // twice, 1 - torch.sym_min(doubled % twice, 1)
    return torch.sym_max(rounded - is_half * (rounded % 2), 1)


def exported_program(module: Exported, *, any_batch: bool = True) -> ExportedProgram:
    """Trace the module for images of any height and width; ``any_batch``: and for any number of them.

    Raises errors of many kinds if torch cannot trace the network.
    """
    moving = {0: Dim.DYNAMIC} if any_batch else {}
    device = next(module.parameters()).device
    image = torch.rand(2 if any_batch else 1, 3, *_EXAMPLE, device=device)
    with torch.no_grad(), _no_side_is_special():
        return torch.export.export(
            module, (image,), dynamic_shapes=({**moving, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},), strict=False
        )


def _no_side_is_special() -> AbstractContextManager[object]:
    """Let torch decide nothing by the sizes of the example. Without this, a graph refuses some sizes."""
    known = hasattr(shapes, "backed_size_oblivious")
    return shapes.patch(backed_size_oblivious=True) if known else nullcontext()  # type: ignore[attr-defined]
