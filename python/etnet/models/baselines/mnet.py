"""M-Net (Fu et al., IEEE TMI 2018; "M-Net [5]" in Tables 1 and 2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from etnet.models.baselines.polar import from_polar, to_polar
from etnet.models.blocks import ConvBnRelu, initialize_blocks, initialize_classifier, upsample
from etnet.models.network import ETNetOutput, SegmentationNetwork

CHANNELS = (32, 64, 128, 256, 512)
"""Ours: channels at the strides 1, 2, 4, 8, 16."""


class MNet(SegmentationNetwork):
    """A U-shaped network with an image pyramid as its input and a classifier at every scale of its decoder.

    Sections of Fu et al. 2018: the U-shape with its skip connections is III-A.1; the multi-scale input, average-pooled
    copies of the image that join the encoder at the strides 2, 4 and 8, is III-A.2; the side outputs, which are
    enlarged to the image, supervised and averaged into the final map, are III-A.3; the polar transform is III-C.

    Ours: `CHANNELS`; two 3x3 convolutions per level, each with batch normalisation and ReLU; transposed 2x2
    convolutions in the decoder; an image of the pyramid passes one 3x3 convolution to the channels of its level.

    Deviation: the article predicts disc and cup as two overlapping labels with sigmoids and a Dice loss (III-B). Here
    the classes exclude each other and the loss is that of every network (`EdgeSupervisedLoss`), because the comparison
    is about networks; a disc is a group of classes. The mean of the side outputs is that of their probabilities, given
    as logits.

    Deviation: the polar transform is a part of the network, there and back, so that masks, losses and scores stay those
    of the image; the article trains on polar pictures.

    Args:
        num_classes: Classes, background included.
        polar: Whether the network sees the image unrolled around its centre; for a region of interest around a disc.
        channels: Channels at the strides 1, 2, 4, 8, 16.

    Example:
        >>> output = MNet(3, channels=(4, 8, 8, 16, 16)).eval()(torch.zeros(1, 3, 64, 96))
        >>> tuple(output.seg_logits.shape), len(output.side_logits)
        ((1, 3, 64, 96), 4)
    """

    encoder: None

    def __init__(self, num_classes: int, *, polar: bool = False, channels: Sequence[int] = CHANNELS) -> None:
        strides = [2**level for level in range(len(channels))]
        super().__init__(num_classes, has_edges=False, size_multiple=strides[-1])
        self.encoder = None
        self.polar = polar
        self.scales = strides[:-1]
        pyramid = channels[1:-1]
        self.pyramid = nn.ModuleList(ConvBnRelu(3, width, kernel_size=3) for width in pyramid)
        joined = [3, *(above + width for above, width in zip(channels[:-2], pyramid, strict=True)), channels[-2]]
        self.down = nn.ModuleList(_double(inputs, width) for inputs, width in zip(joined, channels, strict=True))
        pairs = list(itertools.pairwise(channels))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(deep, width, 2, stride=2) for width, deep in pairs)
        self.up = nn.ModuleList(_double(2 * width, width) for width, _ in pairs)
        self.classifiers = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for width, _ in pairs)
        initialize_blocks(self)
        for classifier in self.classifiers:
            if isinstance(classifier, nn.Conv2d):
                initialize_classifier(classifier)

    def forward(self, image: Tensor) -> ETNetOutput:
        """Segment a batch.

        Args:
            image: Normalised RGB images [N, 3, H, W], float; H and W multiples of 16.

        Returns:
            Logits of the classes, and those of the four side outputs, finest first, at the size of the images.

        Raises:
            UsageError: The batch has another shape or dtype; the message names the size to pad to.
        """
        if not torch.compiler.is_exporting():
            self.check_images(image)
        seen = to_polar(image) if self.polar else image
        decoded = self._decode(self._encode(seen))
        layers = zip(self.classifiers, decoded, self.scales, strict=True)
        sides = [upsample(classifier(features), scale) for classifier, features, scale in layers]
        if self.polar:
            # Together, so that an exported file holds one grid of positions and not four.
            sides = list(from_polar(torch.cat(sides, dim=1)).chunk(len(sides), dim=1))
        return ETNetOutput(mean_prediction(sides), None, tuple(sides))

    def _encode(self, image: Tensor) -> list[Tensor]:
        """Maps at the strides 1, 2, 4, 8, 16."""
        levels: list[Tensor] = [self.down[0](image)]
        for block, branch in zip(itertools.islice(self.down, 1, None), [*self.pyramid, None], strict=True):
            features = functional.max_pool2d(levels[-1], 2)
            if branch is not None:
                image = functional.avg_pool2d(image, 2)
                features = torch.cat((branch(image), features), dim=1)
            levels.append(block(features))
        return levels

    def _decode(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Maps at the strides 1, 2, 4, 8."""
        features, decoded = levels[-1], []
        for skip, enlarge, block in zip(levels[-2::-1], reversed(self.enlarge), reversed(self.up), strict=True):
            features = block(torch.cat((enlarge(features), skip), dim=1))
            decoded.append(features)
        return decoded[::-1]


def mean_prediction(outputs: Sequence[Tensor]) -> Tensor:
    """Logits whose softmax is the mean of the outputs' softmax: log(mean_m softmax(outputs_m)).

    Args:
        outputs: Class scores, each [N, C, H, W], float.

    Returns:
        Logarithms of probabilities [N, C, H, W], float32.
    """
    # In float32 also under autocast: the smallest probabilities are what the logarithm is about.
    logs = torch.stack([torch.log_softmax(logits.float(), dim=1) for logits in outputs])
    return torch.logsumexp(logs, dim=0) - math.log(len(outputs))


def _double(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        ConvBnRelu(in_channels, out_channels, kernel_size=3), ConvBnRelu(out_channels, out_channels, kernel_size=3)
    )
