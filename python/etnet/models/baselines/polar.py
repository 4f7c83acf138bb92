"""Polar transform of a square around its centre, and back (Fu et al., IEEE TMI 2018, Sec. III-C)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from etnet.ops.bilinear import needs_fixed_order, sample_in_fixed_order


def to_polar(image: Tensor) -> Tensor:
    """Unroll maps around their centre.

    Row i of the result is the circle of radius (i + 1/2) / H, column j the direction 2 pi (j + 1/2) / W, counted from
    the x axis towards the y axis. Radius 1 is the inscribed circle, so that a disc in the centre becomes a band on top
    whose share of the pixels is larger than the disc's (Sec. III-C, "balancing cup proportion").

    Ours: the result has the size of the maps; of a rectangle the inscribed ellipse is unrolled; sampled bilinearly, in
    float32.

    Args:
        image: [N, C, H, W], float.

    Returns:
        [N, C, H, W], same dtype.
    """
    radius, angle = _pixel_grid(image)
    radius, angle = (radius + 1) / 2, (angle + 1) * math.pi
    return _sample(image, radius * torch.cos(angle), radius * torch.sin(angle))


def from_polar(polar: Tensor) -> Tensor:
    """Roll polar maps up again: the inverse of `to_polar` inside the inscribed circle.

    Ours: pixels outside the circle, in the corners, take the value of the circle in their direction.

    Args:
        polar: [N, C, H, W], float, as of `to_polar`.

    Returns:
        [N, C, H, W], same dtype.
    """
    y, x = _pixel_grid(polar)
    radius = torch.sqrt(x * x + y * y)
    # The grid holds no exact zero, because heights and widths are even.
    turns = torch.atan2(y, x) / (2 * math.pi)
    turns = torch.where(turns < 0, turns + 1, turns)
    # A turn ends where it began: one column of the other side lets the sampling pass the seam.
    wrapped = torch.cat((polar[..., -1:], polar, polar[..., :1]), dim=3)
    width = polar.shape[3]
    return _sample(wrapped, (2 * width * turns + 2) / (width + 2) - 1, 2 * radius - 1)


def _pixel_grid(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns (y, x) of every pixel's centre [H, W], float32, where the borders of the maps are -1 and 1."""
    y, x = ((2 * torch.arange(side, device=maps.device, dtype=torch.float32) + 1) / side - 1 for side in maps.shape[2:])
    return y[:, None].expand(-1, x.shape[0]), x[None, :].expand(y.shape[0], -1)


def _sample(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Maps at the positions x, y [H, W], in -1..1 from border to border; half precision would miss by a pixel."""
    if needs_fixed_order(maps):
        return sample_in_fixed_order(maps.float(), x, y).to(maps.dtype)
    grid = torch.stack((x, y), dim=2).expand(maps.shape[0], -1, -1, -1)
    sampled = functional.grid_sample(maps.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.to(maps.dtype)
