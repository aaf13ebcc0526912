"""Colour normalisation, and a batch normalisation that accepts a single value per channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Mean and standard deviation of ImageNet's training images, RGB in [0, 1]; most encoders are trained with them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """``(image - mean) / std`` per channel, as the first layer of a network.

    Mean and std belong to the encoder's weights, not to the data, so they are saved with the network. A loaded network
    takes plain images in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, H, W) of about zero mean and unit variance."""
        return (image - self.mean) / self.std


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of globally pooled features (B, C, 1, 1), with ``B = 1`` allowed in training.

    One value per channel has no variance, so torch raises an error. This layer then normalises with the running
    statistics and does not update them. Other inputs are handled as in :class:`torch.nn.BatchNorm2d`.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)

    @classmethod
    def adopt(cls, module: nn.Module) -> None:
        """Let every batch normalisation inside ``module`` accept one value per channel, in place."""
        for child in module.modules():
            if type(child) is nn.BatchNorm2d:
                child.__class__ = cls  # same tensors and options: only the forward pass differs
