"""Weighted aggregation of the decoder's side outputs (paper Sec. 2.2)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from etnet.models.blocks import ConvBnRelu, WeightedBlock, initialize_blocks, upsample

if TYPE_CHECKING:
    from collections.abc import Sequence


class WeightedAggregationModule(nn.Module):
    """Weighs and sums the outputs of the D-Blocks and mixes in the edge guidance features (Sec. 2.2).

    "Outputs of each D-Block are fed into the Weighted Blocks"; the weighted maps are integrated "via a bottom-up
    pathway", concatenated with the edge-attention representations, and a 1x1 convolution follows.

    Ours: the pathway goes from the coarsest map to the finest, each sum enlarged (bilinear) to the next map's size and
    added to it; the 1x1 convolution returns to `channels`, with batch normalisation and ReLU.

    Deviation: `use_weights=False` leaves out weighing and summing, for the rows of Table 3 without this module: the
    last D-Block's output alone goes on to the concatenation and the 1x1 convolution.

    Args:
        channels: Channels of every D-Block's output and of the result.
        edge_channels: Channels of the guidance features; 0 where there are none.
        strides: Strides of the D-Blocks' outputs, coarsest first.
        use_weights: Whether the side outputs are weighed and summed.
    """

    def __init__(self, channels: int, edge_channels: int, *, strides: Sequence[int], use_weights: bool = True) -> None:
        super().__init__()
        self.scales = tuple(coarse // fine for coarse, fine in itertools.pairwise(strides))
        self.weighted_blocks = nn.ModuleList(WeightedBlock(channels) for _ in strides) if use_weights else None
        self.fuse = ConvBnRelu(channels + edge_channels, channels)
        initialize_blocks(self)

    def forward(self, side_outputs: Sequence[Tensor], guidance: Tensor | None) -> Tensor:
        """Aggregate.

        Args:
            side_outputs: Outputs of the D-Blocks, coarsest first, each [N, channels, H / stride, W / stride].
            guidance: Edge guidance features [N, edge_channels, h, w] at the finest stride, or None.

        Returns:
            [N, channels, h, w] at the stride of the last side output.
        """
        if self.weighted_blocks is None:
            total = side_outputs[-1]
        else:
            pairs = zip(self.weighted_blocks, side_outputs, strict=True)
            total = self._bottom_up([weigh(output) for weigh, output in pairs])
        if guidance is not None:
            total = torch.cat((total, guidance), dim=1)
        fused: Tensor = self.fuse(total)
        return fused

    def _bottom_up(self, weighted: Sequence[Tensor]) -> Tensor:
        total = weighted[0]
        for scale, finer in zip(self.scales, weighted[1:], strict=True):
            total = upsample(total, scale) + finer
        return total
