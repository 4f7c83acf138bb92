"""Building blocks of the decoder: convolution unit, DBlock and WeightedBlock (paper Sec. 2 and 2.2, Fig. 2)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from etnet.ops.bilinear import needs_fixed_order, upsample_in_fixed_order
from etnet.ops.weighted_block import twin_is_better, weighted_block


def upsample(features: Tensor, scale: int) -> Tensor:
    """Enlarge a feature map `scale` times, bilinear, `align_corners=False`.

    A constant scale factor, not a target size: a size read from another tensor would put Shape nodes into ONNX exports.

    Args:
        features: [N, C, H, W], float.
        scale: Integer factor; 1 returns the input itself.

    Returns:
        [N, C, H * scale, W * scale], same dtype.
    """
    if scale == 1:
        return features
    if needs_fixed_order(features):
        return upsample_in_fixed_order(features, scale)
    return functional.interpolate(features, scale_factor=float(scale), mode="bilinear", align_corners=False)


class ConvBnRelu(nn.Sequential):
    """Convolution without bias, batch normalisation, ReLU; the size of the map is kept.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd side of the kernel, padded with zeros to keep the size.
        groups: Groups of the convolution; `in_channels` makes it depthwise.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class DBlock(nn.Module):
    """Decoding block: fuses a high-level with a low-level map (paper Sec. 2, Fig. 2a).

    "The D-Block first adopts a depth-wise convolution to enhance the representation of the fused low-level and
    high-level features. Then, a 1x1 convolution is used to unify the number of channels."

    Ours: both inputs are brought to `channels` by a 1x1 convolution before the addition (a map that has them already
    is taken as it is); the depthwise kernel is 3x3; batch normalisation and ReLU follow each convolution.

    Args:
        high_channels: Channels of the deeper map.
        low_channels: Channels of the shallower map.
        channels: Channels of the output.
        scale: Stride of the deeper map divided by the stride of the shallower one; 1 where dilation made them equal.
    """

    def __init__(self, high_channels: int, low_channels: int, channels: int, *, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.high_lateral = lateral(high_channels, channels)
        self.low_lateral = lateral(low_channels, channels)
        self.depthwise = ConvBnRelu(channels, channels, kernel_size=3, groups=channels)
        self.pointwise = ConvBnRelu(channels, channels)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Fuse two maps.

        Args:
            high: Deeper map [N, high_channels, H / scale, W / scale].
            low: Shallower map [N, low_channels, H, W].

        Returns:
            [N, channels, H, W].
        """
        fused = upsample(self.high_lateral(high), self.scale) + self.low_lateral(low)
        decoded: Tensor = self.pointwise(self.depthwise(fused))
        return decoded


def lateral(in_channels: int, out_channels: int) -> nn.Module:
    """A 1x1 convolution unit to `out_channels`, or nothing where the map has them already."""
    return nn.Identity() if in_channels == out_channels else ConvBnRelu(in_channels, out_channels)


class WeightedBlock(nn.Module):
    """Weighs the channels of a map by its global context (paper Sec. 2.2, Fig. 2b).

    Global average pooling, 1x1 convolution, ReLU, 1x1 convolution, sigmoid, multiplication with the input.

    Ours: the inner 1x1 convolution reduces the channels 16-fold, but not below 8; both have a bias.

    Args:
        channels: Channels of the map.
        reduction: Factor by which the inner convolution reduces them.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        inner = max(8, channels // reduction)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.expand = nn.Conv2d(inner, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Weigh a map [N, channels, H, W]; returns the same shape.

        By the operator `etnet.ops.weighted_block` where that is faster. Compilers and exporters see the plain formula,
        which the ones fuse with its neighbours and the others can write down.
        """
        if _is_traced() or twin_is_better(features, trains=torch.is_grad_enabled()):
            context = features.mean(dim=(2, 3), keepdim=True)
            weights = torch.sigmoid(self.expand(functional.relu(self.reduce(context))))
            return features * weights
        w1, w2 = self.reduce.weight.flatten(1), self.expand.weight.flatten(1)
        return weighted_block(features, w1, cast("Tensor", self.reduce.bias), w2, cast("Tensor", self.expand.bias))


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def initialize_blocks(module: nn.Module) -> None:
    """Random start of every layer outside the encoder ("randomly initialized", paper Sec. 2.3).

    Ours: He initialisation (normal, fan out, ReLU); depthwise kernels take their fan in, because torch counts the
    fan out of a grouped convolution over all groups and would start them far too small. Biases start at 0, batch
    normalisation at scale 1 and shift 0.

    Args:
        module: Every convolution and normalisation below it is set in place.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            depthwise = layer.groups > 1
            nn.init.kaiming_normal_(layer.weight, mode="fan_in" if depthwise else "fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def initialize_classifier(layer: nn.Conv2d, *, std: float = 0.01) -> None:
    """Start a classifier so that every pixel begins with almost the same probability for each class.

    Ours: weights from N(0, std), bias 0. The gradient of Lovasz-Softmax passes through p (1 - p): it is largest at
    even odds and dies where a class begins saturated, so there is no bias towards the frequent background.

    Args:
        layer: Classifier, set in place.
        std: Standard deviation of the weights; 0.01 is for a 1x1 convolution of some hundred channels.
    """
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
