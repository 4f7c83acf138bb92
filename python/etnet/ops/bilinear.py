"""Bilinear enlarging and sampling with gradients summed in a fixed order, for runs that repeat bit for bit on a GPU.

torch sums the gradients of `interpolate` and `grid_sample` by atomic additions on CUDA, in another order each time, and
refuses them under `torch.use_deterministic_algorithms(True)` (newer versions replace the former by a slow path).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def needs_fixed_order(tensor: Tensor) -> bool:
    """Whether deterministic algorithms are asked for, and the device's own gradients are not: a CPU's always are."""
    return torch.are_deterministic_algorithms_enabled() and not tensor.is_cpu


def upsample_in_fixed_order(features: Tensor, scale: int) -> Tensor:
    """Enlarge a map as `interpolate(mode="bilinear", align_corners=False)` does; the gradient sums in a fixed order.

    Args:
        features: [N, C, H, W], float.
        scale: Integer factor, at least 2.

    Returns:
        [N, C, H * scale, W * scale], same dtype. It cannot be differentiated twice.
    """
    enlarged: Tensor = _Upsample.apply(features, scale)
    return enlarged


def sample_in_fixed_order(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Sample maps as `grid_sample(mode="bilinear", padding_mode="border", align_corners=False)` does.

    The gradient is that of `index_select`, for which torch has a deterministic algorithm.

    Args:
        maps: [N, C, H, W], float32 or float64.
        x: Columns [h, w], -1..1 from border to border, the same for every map; not differentiated.
        y: Rows [h, w], likewise.

    Returns:
        [N, C, h, w], same dtype.
    """
    height, width = maps.shape[2:]
    left, right, along = _neighbours(x, width)
    top, bottom, down = _neighbours(y, height)
    flat = maps.flatten(2)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return flat.index_select(2, (row * width + column).flatten()).view(*maps.shape[:2], *x.shape)

    along, down = along.to(maps.dtype), down.to(maps.dtype)
    upper = at(top, left) * (1 - along) + at(top, right) * along
    lower = at(bottom, left) * (1 - along) + at(bottom, right) * along
    sampled: Tensor = upper * (1 - down) + lower * down
    return sampled


def _neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels around positions in -1..1 and the share of the second; outside, the border counts."""
    pixel = (((position + 1) * size - 1) / 2).clamp(0, size - 1)
    first = pixel.floor()
    return first.long(), (first.long() + 1).clamp(max=size - 1), pixel - first


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, scale: int) -> Tensor:
        ctx.scale = scale
        # The operator itself: `functional.interpolate` would take its slow path here. Its forward pass has no sums
        # across pixels.
        return cast("Tensor", torch.ops.aten.upsample_bilinear2d.vec(features, None, False, [float(scale)] * 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        wide = torch.float64 if gradient.dtype == torch.float64 else torch.float32
        folded = _fold(_fold(gradient.to(wide), ctx.scale, dim=2), ctx.scale, dim=3)
        return folded.to(gradient.dtype), None


def _fold(gradient: Tensor, scale: int, *, dim: int) -> Tensor:
    """Transpose of enlarging along one dimension: what every pixel gave to those it became and to their neighbours.

    The pixel i * scale + k of the large map lies at i + d of the small one, with d = (k + 1/2) / scale - 1/2: it takes
    1 - |d| of pixel i and |d| of the next one on its side, at the border of pixel i itself.
    """
    size = gradient.shape[dim] // scale
    cells = gradient.unflatten(dim, (size, scale))
    own, to_former, to_next = (torch.zeros_like(cells.select(dim + 1, 0)) for _ in range(3))
    for place in range(scale):
        offset = (place + 0.5) / scale - 0.5
        part = cells.select(dim + 1, place)
        own.add_(part, alpha=1 - abs(offset))
        (to_former if offset < 0 else to_next).add_(part, alpha=abs(offset))
    own.narrow(dim, 0, size - 1).add_(to_former.narrow(dim, 1, size - 1))
    own.narrow(dim, 1, size - 1).add_(to_next.narrow(dim, 0, size - 1))
    own.narrow(dim, 0, 1).add_(to_former.narrow(dim, 0, 1))
    own.narrow(dim, size - 1, 1).add_(to_next.narrow(dim, size - 1, 1))
    return own
