"""The fully convolutional network (Shelhamer et al., TPAMI 2017; "FCN [13]" in Tables 1 and 2)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from etnet.models.blocks import initialize_classifier, upsample
from etnet.models.encoder import OUTPUT_STRIDE, Encoder
from etnet.models.network import ETNetOutput, SegmentationNetwork


class FCN(SegmentationNetwork):
    """torchvision's FCN head on the last map of the encoder, its scores enlarged to the image.

    Ours: the paper does not say which FCN it compares with. This one has the encoder of ET-Net, dilated to an output
    stride of 16, where the article has VGG-16 and adds the scores of two shallower maps (FCN-8s, Sec. 4); the head is
    torchvision's (3x3 convolution to a quarter of the channels, batch normalisation, ReLU, dropout 0.1, 1x1
    classifier); the scores are enlarged 16x, bilinear. The classifier starts as that of ET-Net.

    Args:
        num_classes: Classes, background included.
        encoder: Name of a timm backbone, see `Encoder`.

    Raises:
        UsageError: The encoder does not exist or does not fit.

    Example:
        >>> output = FCN(2, encoder="resnet18").eval()(torch.zeros(1, 3, 64, 96))
        >>> tuple(output.seg_logits.shape), output.edge_logits
        ((1, 2, 64, 96), None)
    """

    encoder: Encoder

    def __init__(self, num_classes: int, *, encoder: str = "resnet50") -> None:
        super().__init__(num_classes, has_edges=False, size_multiple=OUTPUT_STRIDE)
        self.encoder = Encoder(encoder)
        self.head = FCNHead(self.encoder.channels[-1], num_classes)
        initialize_classifier(cast("nn.Conv2d", self.head[-1]))

    def forward(self, image: Tensor) -> ETNetOutput:
        """Segment a batch.

        Args:
            image: Normalised RGB images [N, 3, H, W], float; H and W multiples of 16.

        Returns:
            Logits of the classes at the size of the images.

        Raises:
            UsageError: The batch has another shape or dtype; the message names the size to pad to.
        """
        if not torch.compiler.is_exporting():
            self.check_images(image)
        deepest = self.encoder(image)[-1]
        return ETNetOutput(upsample(self.head(deepest), OUTPUT_STRIDE), None)
