"""Networks of segmentation_models_pytorch (extra `baselines`) with the encoders that ET-Net has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from etnet.config.networks import NETWORKS
from etnet.errors import UsageError
from etnet.models.blocks import initialize_classifier
from etnet.models.encoder import check_name, described, feature_info
from etnet.models.network import ETNetOutput, SegmentationNetwork

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "unet": smp.Unet,
    "unetplusplus": smp.UnetPlusPlus,
    "manet": smp.MAnet,
    "linknet": smp.Linknet,
    "fpn": smp.FPN,
    "pspnet": smp.PSPNet,
    "deeplabv3plus": smp.DeepLabV3Plus,
}

_LOGIT_SPREAD = 0.16
"""Of ET-Net's 1x1 classifier: weights from N(0, 0.01) times the root of 256 channels."""


@dataclass(frozen=True)
class LibraryBackbone:
    """The timm backbone inside a network of the library; see `Backbone`."""

    name: str
    features: nn.Module
    options: Mapping[str, Any]


class LibraryNetwork(SegmentationNetwork):
    """One network of the library with its own decoder and defaults.

    Its encoder is the timm backbone of the given name, as in ET-Net, at the output stride of the library's default: 32
    (8 for `pspnet`, which reads its first three stages only, and 16 for `deeplabv3plus`).

    Ours: the last convolution starts with logits as small as those of ET-Net, whatever the size of its kernel, because
    the loss hardly moves what begins saturated (`initialize_classifier`). Everything else starts as the library does
    it.

    Args:
        name: One of `ARCHITECTURES`.
        num_classes: Classes, background included.
        encoder: A timm model with feature maps, for instance `resnet50`, `resnet18`, `mobilenetv2_100`; a pretrained
            tag may follow a dot.

    Raises:
        UsageError: timm has no such model, or the library cannot read its feature maps.

    Example:
        >>> output = LibraryNetwork("unet", 2, encoder="resnet18").eval()(torch.zeros(1, 3, 64, 96))
        >>> tuple(output.seg_logits.shape), output.edge_logits
        ((1, 2, 64, 96), None)
    """

    def __init__(self, name: str, num_classes: int, *, encoder: str = "resnet50") -> None:
        super().__init__(num_classes, has_edges=False, size_multiple=NETWORKS[name].size_multiple)
        self.body = _create(name, num_classes, encoder)
        features: nn.Module = self.body.get_submodule("encoder.model")
        options = {"features_only": True, "out_indices": tuple(feature_info(features).out_indices)}
        self.encoder = LibraryBackbone(encoder, features, options)
        classifier = self.body.get_submodule("segmentation_head.0")
        if isinstance(classifier, nn.Conv2d):
            inputs = classifier.weight[0].numel()
            initialize_classifier(classifier, std=_LOGIT_SPREAD / math.sqrt(inputs))

    def forward(self, image: Tensor) -> ETNetOutput:
        """Segment a batch.

        Args:
            image: Normalised RGB images [N, 3, H, W], float; H and W multiples of `size_multiple`.

        Returns:
            Logits of the classes at the size of the images.

        Raises:
            UsageError: The batch has another shape or dtype; the message names the size to pad to.
        """
        if not torch.compiler.is_exporting():
            self.check_images(image)
        return ETNetOutput(self.body(image), None)


def _create(name: str, num_classes: int, encoder: str) -> nn.Module:
    check_name(encoder)
    try:
        return ARCHITECTURES[name](encoder_name=f"tu-{encoder}", encoder_weights=None, classes=num_classes)
    except (TypeError, ValueError, AssertionError, NotImplementedError, RuntimeError, IndexError, KeyError) as error:
        # The ways in which timm and the library say that a family has no such feature maps.
        raise UsageError(
            f"model.encoder={encoder}: {name} cannot read its feature maps ({described(error)}); take a backbone with "
            "maps of strides 2 to 32, for instance resnet50, resnet18 or mobilenetv2_100."
        ) from error
