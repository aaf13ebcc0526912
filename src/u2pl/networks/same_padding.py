"""TensorFlow's padding of convolutions, as a constant."""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn


class ConstantSame(Conv2dSame):
    """A convolution with TensorFlow's padding, for sides that are multiples of its stride.

    The library computes the padding from the side of each map. In a graph for all sizes these formulas nest, and torch
    takes minutes for them. If sides are multiples of the stride, the padding is the same for all.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, h, w) -> (B, L, h / stride, w / stride)."""
        around: list[int] = []
        for side in (1, 0):
            whole = max(self.dilation[side] * (self.kernel_size[side] - 1) + 1 - self.stride[side], 0)
            around += [whole // 2, whole - whole // 2]
        return F.conv2d(F.pad(x, around), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    @classmethod
    def adopt(cls, module: nn.Module) -> None:
        """Let every such convolution inside ``module`` pad in this way, in place."""
        for child in module.modules():
            if type(child) is Conv2dSame:
                child.__class__ = cls  # same tensors and options: only the forward pass differs
