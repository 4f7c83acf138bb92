"""Edge guidance from the early encoder stages (paper Sec. 2.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from etnet.models.blocks import ConvBnRelu, initialize_blocks, initialize_classifier, upsample

EDGE_CLASSES = 2
"""Interior and boundary: the edge branch is a two-class segmentation, so that Lovasz-Softmax applies to it."""


class EdgeGuidanceModule(nn.Module):
    """Learns edge features from E-Blocks 1 and 2 and predicts the boundaries they are supervised with (Sec. 2.1).

    E2 is upsampled to the resolution of E1, both pass 1x1-3x3 convolutions and are concatenated; one 1x1 convolution
    makes the guidance features for the decoder, another the edge prediction.

    Ours: each 1x1-3x3 pair goes to `edge_channels`; batch normalisation and ReLU follow every convolution but the
    prediction; the prediction is made at the stride of E1 and enlarged to the input as logits.

    Args:
        e1_channels: Channels of E-Block 1.
        e2_channels: Channels of E-Block 2.
        edge_channels: Channels of the guidance features.
        scale: Stride of E2 divided by the stride of E1.
        stride: Stride of E1, by which the prediction is enlarged.
    """

    def __init__(
        self, e1_channels: int, e2_channels: int, edge_channels: int, *, scale: int = 2, stride: int = 4
    ) -> None:
        super().__init__()
        self.scale = scale
        self.stride = stride
        self.e1_branch = _edge_branch(e1_channels, edge_channels)
        self.e2_branch = _edge_branch(e2_channels, edge_channels)
        self.guidance = ConvBnRelu(2 * edge_channels, edge_channels)
        self.classifier = nn.Conv2d(2 * edge_channels, EDGE_CLASSES, 1)
        initialize_blocks(self)
        initialize_classifier(self.classifier)

    def forward(self, e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor]:
        """Extract edges.

        Args:
            e1: E-Block 1, [N, e1_channels, H / 4, W / 4].
            e2: E-Block 2, [N, e2_channels, H / 8, W / 8].

        Returns:
            Guidance features [N, edge_channels, H / 4, W / 4] and edge logits [N, 2, H, W] (interior, boundary).
        """
        shallow = self.e1_branch(e1)
        deep = self.e2_branch(upsample(e2, self.scale))
        joined = torch.cat((shallow, deep), dim=1)
        return self.guidance(joined), upsample(self.classifier(joined), self.stride)


def _edge_branch(in_channels: int, edge_channels: int) -> nn.Sequential:
    return nn.Sequential(
        ConvBnRelu(in_channels, edge_channels),
        ConvBnRelu(edge_channels, edge_channels, kernel_size=3),
    )
