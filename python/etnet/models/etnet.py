"""ET-Net: encoder, three D-Blocks, edge guidance and weighted aggregation (paper Sec. 2, Fig. 1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from etnet.models.blocks import DBlock, initialize_blocks, initialize_classifier, upsample
from etnet.models.edge_guidance import EdgeGuidanceModule
from etnet.models.encoder import OUTPUT_STRIDE, STAGE_STRIDES, STEM_STRIDE, Encoder
from etnet.models.network import ETNetOutput, SegmentationNetwork
from etnet.models.weighted_aggregation import WeightedAggregationModule


class Features(NamedTuple):
    """What the classifier of ET-Net reads, and the edges.

    Attributes:
        fused: What the classes are predicted from, [N, channels, H / stride, W / stride], see `ETNet.stride`.
        edge_logits: Edge logits [N, 2, H, W]; None without edge guidance.
    """

    fused: Tensor
    edge_logits: Tensor | None


class ETNet(SegmentationNetwork):
    """The edge-attention guidance network (paper Sec. 2, Fig. 1).

    E1..E4 (strides 4, 8, 16, 16) are decoded by three cascaded D-Blocks: (E4, E3) -> D1, (D1, E2) -> D2,
    (D2, E1) -> D3 with strides 16, 8, 4. The edge guidance module reads E1 and E2, the weighted aggregation module
    joins D1..D3 with the edge features, and a 1x1 classifier gives the class scores.

    Ours: the D-Blocks have 256 and the edge features 64 channels unless the recipe says otherwise; the classes are
    predicted at stride 4 and their logits enlarged 4x, bilinear. `use_egm` and `use_wam` switch the two modules off
    for the four rows of Table 3; with neither, D3 goes through the 1x1 convolution to the classifier.

    Ours, not in the paper, and off unless asked for: with `high_resolution` a fourth D-Block joins the aggregated
    features with the encoder's map of stride 2 that precedes E1, and the classes are predicted at stride 2, for
    structures that are thinner than a pixel at stride 4. It has as many channels as that map, but at least a quarter of
    the other D-Blocks'. Edges are predicted as before.

    All weights start at random, the encoder's as timm does it; `load_encoder_weights` loads ImageNet weights.

    Args:
        num_classes: Classes, background included.
        encoder: Name of a timm backbone, see `Encoder`.
        decoder_channels: Channels of the D-Blocks.
        edge_channels: Channels of the edge guidance features.
        use_egm: Whether there is an edge guidance module (and edge logits).
        use_wam: Whether the side outputs are weighed and summed.
        high_resolution: Whether the classes are predicted at stride 2.

    Attributes:
        stride: That of the features which the classes are predicted from, 4 or 2.

    Raises:
        UsageError: The encoder does not exist or does not fit.

    Example:
        >>> network = ETNet(2, encoder="resnet18", decoder_channels=32, edge_channels=16).eval()
        >>> output = network(torch.zeros(1, 3, 64, 96))
        >>> tuple(output.seg_logits.shape), tuple(output.edge_logits.shape)
        ((1, 2, 64, 96), (1, 2, 64, 96))
    """

    encoder: Encoder

    def __init__(
        self,
        num_classes: int,
        *,
        encoder: str = "resnet50",
        decoder_channels: int = 256,
        edge_channels: int = 64,
        use_egm: bool = True,
        use_wam: bool = True,
        high_resolution: bool = False,
    ) -> None:
        super().__init__(num_classes, has_edges=use_egm, size_multiple=OUTPUT_STRIDE)
        self.encoder = Encoder(encoder, with_stem=high_resolution)
        *stem, e1, e2, e3, e4 = self.encoder.channels
        s1, s2, s3, s4 = STAGE_STRIDES
        channels = decoder_channels
        self.d_block1 = DBlock(e4, e3, channels, scale=s4 // s3)
        self.d_block2 = DBlock(channels, e2, channels, scale=s3 // s2)
        self.d_block3 = DBlock(channels, e1, channels, scale=s2 // s1)
        for block in (self.d_block1, self.d_block2, self.d_block3):
            initialize_blocks(block)
        self.edge_guidance = EdgeGuidanceModule(e1, e2, edge_channels, scale=s2 // s1, stride=s1) if use_egm else None
        self.weighted_aggregation = WeightedAggregationModule(
            channels, edge_channels if use_egm else 0, strides=(s3, s2, s1), use_weights=use_wam
        )
        self.stride, self.d_block4, width = s1, None, channels
        if high_resolution:
            self.stride, width = STEM_STRIDE, max(stem[0], channels // 4)
            self.d_block4 = DBlock(channels, stem[0], width, scale=s1 // STEM_STRIDE)
            initialize_blocks(self.d_block4)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        initialize_classifier(self.classifier)

    def forward(self, image: Tensor) -> ETNetOutput:
        """Segment a batch.

        Args:
            image: Normalised RGB images [N, 3, H, W], float; H and W multiples of 16.

        Returns:
            Logits of the classes and, with edge guidance, of the edges, at the size of the images.

        Raises:
            UsageError: The batch has another shape or dtype; the message names the size to pad to.
        """
        if not torch.compiler.is_exporting():
            self.check_images(image)
        fused, edge_logits = self.features(image)
        return ETNetOutput(upsample(self.classifier(fused), self.stride), edge_logits)

    def features(self, image: Tensor) -> Features:
        """What the classifier reads, and the edges.

        Args:
            image: As for `forward`.
        """
        *stem, e1, e2, e3, e4 = self.encoder(image)
        d1 = self.d_block1(e4, e3)
        d2 = self.d_block2(d1, e2)
        d3 = self.d_block3(d2, e1)
        guidance, edge_logits = (None, None) if self.edge_guidance is None else self.edge_guidance(e1, e2)
        fused: Tensor = self.weighted_aggregation((d1, d2, d3), guidance)
        if self.d_block4 is not None:
            fused = self.d_block4(fused, stem[0])
        return Features(fused, edge_logits)
