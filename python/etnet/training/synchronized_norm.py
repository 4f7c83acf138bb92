"""Batch normalization over the pixels of all processes on a CPU, which torch has for GPUs only (paper Sec. 2.3)."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional


class _Normalize(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, where mean and variance depend on x in every process.

    With y = (x - mean) / sqrt(variance + eps), g the gradient of the output and N pixels in all processes together:
    dx = weight / sqrt(variance + eps) * (g - sum(g) / N - y * sum(g * y) / N), both sums over all processes. The
    gradients of weight and bias are those of this process alone: whoever trains in parallel adds up all parameters'.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, count: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.count = eps, count
        return functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, mean, variance = ctx.saved_tensors
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [False, True, True]
        )
        sums = torch.stack([of_weight, of_bias]).double()
        dist.all_reduce(sums)
        inverse = (variance + ctx.eps).rsqrt()
        with_y, plain = (sums / ctx.count).to(inverse.dtype)
        deviation = x - _per_channel(mean)
        of_x = gradient - _per_channel(plain) - deviation * _per_channel(with_y * inverse)
        return of_x * _per_channel(weight * inverse), of_weight, of_bias, None, None, None, None


class SynchronizedBatchNorm(nn.BatchNorm2d):
    """What `torch.nn.SyncBatchNorm` is on a GPU, in plain torch for any device and back-end that can gather.

    Its results are those of `BatchNorm2d` on the pixels of all processes together, up to rounding. While it is
    evaluated, and where no processes were joined, it is `BatchNorm2d` itself. What this leaves out: cumulative
    averages (`momentum=None`), layers without weights or running statistics, and higher derivatives.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch
        """Normalize.

        Args:
            input: [N, C, H, W], floating point; N may differ between processes, H and W too.

        Returns:
            The same shape and memory layout.
        """
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        mean, variance, count = self._statistics(input.detach())
        self._follow(mean, variance * (count / max(1, count - 1)))
        out: Tensor = _Normalize.apply(input, self.weight, self.bias, mean, variance, self.eps, count)
        return out

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        tracked = self.num_batches_tracked, self.running_mean, self.running_var
        if tracked[0] is not None and tracked[1] is not None and tracked[2] is not None and self.momentum is not None:
            tracked[0].add_(1)
            tracked[1].lerp_(mean, self.momentum)
            tracked[2].lerp_(variance, self.momentum)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        """Mean and variance [C] over the pixels of all processes, the same bits in each, and how many those are."""
        # Of two processes' parts, merged in float64 (Chan et al. 1983): the mean of squares alone would cancel.
        mean, variance = torch.batch_norm_update_stats(x.to(self.weight.dtype), None, None, 0.0)
        count = torch.full_like(mean, x.numel() // x.shape[1])
        mine = torch.stack([count, mean, variance]).double()
        everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, mine)
        counts, means, variances = torch.stack(everyone, dim=1)
        total = counts.sum(0)
        together = (counts * means).sum(0) / total
        spread = (counts * (variances + (means - together).square())).sum(0) / total
        return together.to(mean.dtype), spread.to(mean.dtype), int(total[0])


class _SynchronizedBatchNormAct(SynchronizedBatchNorm):
    """With what timm fuses into its layers: dropout and activation."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        out: Tensor = self.act(self.drop(super().forward(input)))
        return out


def convert_batch_norm(module: nn.Module) -> nn.Module:
    """The module with every two-dimensional batch normalization synchronized; parameters stay the same objects."""
    if isinstance(module, nn.BatchNorm2d) and not isinstance(module, SynchronizedBatchNorm):
        return _synchronized(module)
    for name, child in list(module.named_children()):
        setattr(module, name, convert_batch_norm(child))
    return module


def _synchronized(layer: nn.BatchNorm2d) -> SynchronizedBatchNorm:
    kind = _SynchronizedBatchNormAct if isinstance(layer, BatchNormAct2d) else SynchronizedBatchNorm
    new = kind(layer.num_features, layer.eps, layer.momentum)
    new.weight, new.bias = layer.weight, layer.bias
    new.running_mean, new.running_var = layer.running_mean, layer.running_var
    new.num_batches_tracked = layer.num_batches_tracked
    if isinstance(new, _SynchronizedBatchNormAct):
        new.drop, new.act = cast("nn.Module", layer.drop), cast("nn.Module", layer.act)
    return new.train(layer.training)


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
