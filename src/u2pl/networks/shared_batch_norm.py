"""Batch normalisation over the images of all processes, where torch has none: it runs on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from u2pl.structures import Reduce


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose mean and variance are those of all processes (as in :class:`torch.nn.SyncBatchNorm`).

    In evaluation mode it is :class:`torch.nn.BatchNorm2d`, and it has the same tensors. A layer of timm that ends with
    dropout and an activation keeps them. All processes have to call their layers equally often and in the same order.
    """

    total: Reduce  #: sums a tensor over all processes

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W) of the same dtype. Statistics are float32 at least."""
        output = self._over_all(input) if self.training else super().forward(input)
        for last in ("drop", "act"):  # of timm's BatchNormAct2d
            if last in self._modules:
                output = self._modules[last](output)  # type: ignore[misc]
        return output

    def _over_all(self, input: Tensor) -> Tensor:
        wide = input if input.dtype == torch.float64 else input.float()
        output, mean, variance, count = _Standardize.apply(wide, self.eps, self.total)  # type: ignore[no-untyped-call]
        if self.track_running_stats:
            self._follow(mean, variance * count / (count - 1).clamp(min=1))  # like torch: unbiased
        if self.affine:
            output = output * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return output.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards (C,) mean and variance of this batch."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight: Any = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(variance.to(self.running_var.dtype), weight)

    @classmethod
    def adopt(cls, module: nn.Module, total: Reduce) -> None:
        """Let every 2D batch normalisation inside ``module`` use the values of all processes, in place.

        ``total`` sums a tensor over all processes. The tensors stay the same objects.
        """
        for child in module.modules():
            if isinstance(child, nn.BatchNorm2d):
                child.__class__ = cls  # same tensors and options: only the forward pass differs
                child.total = total  # type: ignore[assignment]


class _Standardize(torch.autograd.Function):
    """``(x - mean) / sqrt(variance + eps)`` with statistics of all processes (Ioffe & Szegedy 2015, section 3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, total: Reduce) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns (B, C, H, W), the mean (C,) and biased variance (C,) in float64, and the count, a float64 scalar."""
        own = x.numel() // x.shape[1]
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        mean, variance = mean.double(), variance.double()
        # In float64 the difference of the mean square and the squared mean loses nothing that float32 could hold.
        sums = total(torch.cat((own * mean, own * (variance + mean**2), mean.new_tensor([own]))))
        count = sums[-1]
        mean, square = (sums[:-1] / count).chunk(2)
        variance = (square - mean**2).clamp(min=0)
        scale = (variance + eps).rsqrt().to(x.dtype)
        output = (x - mean.to(x.dtype).view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
        ctx.save_for_backward(output, scale, count)
        ctx.total = total
        ctx.mark_non_differentiable(mean, variance, count)
        return output, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        """The gradient of the sum of all processes' losses by ``x``."""
        output, scale, count = ctx.saved_tensors
        own = torch.cat((gradient.sum(dim=(0, 2, 3)), (gradient * output).sum(dim=(0, 2, 3))))
        mean, product = (ctx.total(own.double()) / count).to(gradient.dtype).view(2, 1, -1, 1, 1)
        return scale.view(1, -1, 1, 1) * (gradient - mean - output * product), None, None
