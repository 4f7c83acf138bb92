"""Edges and regions from the same features (after DCAN, Chen et al., CVPR 2016; "Multi-task [3]" in Tables 1 and 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from etnet.models.blocks import initialize_classifier, upsample
from etnet.models.edge_guidance import EDGE_CLASSES
from etnet.models.etnet import ETNet
from etnet.models.network import ETNetOutput


class MultiTask(ETNet):
    """The base network of Table 3 with a second classifier for edges.

    "It predicts edge and object predictions on the same features" (paper Sec. 3), as DCAN does with its two branches
    for objects and contours on one downsampling path (Chen et al. 2016, Sec. 3.2).

    Ours: encoder and D-Blocks are those of ET-Net, without edge guidance and weighted aggregation, so that the
    comparison is about where edges are learned; both classifiers are 1x1 convolutions on the decoder's last features;
    edges are supervised as ET-Net's are, with the same `alpha`.

    Deviation: DCAN's auxiliary classifiers on three levels, which fade out during training (its Sec. 3.1), and the
    subtraction of contours from objects afterwards, which separates touching glands, are left out: nothing else in the
    comparison has them.

    Args:
        num_classes: Classes, background included.
        encoder: Name of a timm backbone, see `Encoder`.
        decoder_channels: Channels of the D-Blocks.

    Raises:
        UsageError: The encoder does not exist or does not fit.

    Example:
        >>> output = MultiTask(3, encoder="resnet18", decoder_channels=32).eval()(torch.zeros(1, 3, 64, 96))
        >>> tuple(output.seg_logits.shape), tuple(output.edge_logits.shape)
        ((1, 3, 64, 96), (1, 2, 64, 96))
    """

    def __init__(self, num_classes: int, *, encoder: str = "resnet50", decoder_channels: int = 256) -> None:
        super().__init__(num_classes, encoder=encoder, decoder_channels=decoder_channels, use_egm=False, use_wam=False)
        self.has_edges = True
        self.edge_classifier = nn.Conv2d(decoder_channels, EDGE_CLASSES, 1)
        initialize_classifier(self.edge_classifier)

    def forward(self, image: Tensor) -> ETNetOutput:
        """Segment a batch.

        Args:
            image: Normalised RGB images [N, 3, H, W], float; H and W multiples of 16.

        Returns:
            Logits of the classes and of the edges at the size of the images.

        Raises:
            UsageError: The batch has another shape or dtype; the message names the size to pad to.
        """
        if not torch.compiler.is_exporting():
            self.check_images(image)
        features = self.features(image).fused
        scale = self.stride
        return ETNetOutput(upsample(self.classifier(features), scale), upsample(self.edge_classifier(features), scale))
