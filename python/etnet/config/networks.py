"""What recipes have to know about the networks that `model.name` offers; the networks are in `etnet.models`."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkTraits:
    """One network, as far as it can be described without torch.

    Attributes:
        description: One line for users.
        size_multiple: Height and width of its input must be multiples of this many pixels.
        smallest_batch: Images that a training step needs at least. 2 where a map of one pixel is batch-normalised.
        has_encoder: Whether `model.encoder` and `model.encoder_weights` say anything about it.
        exports_free_size: Whether an ONNX file of it can take images of every size; the pooling of `pspnet` into 6x6
            parts has no counterpart there unless the size is known.
        extra: The extra of etnet that installs what it needs beside `train`; None for nothing.
    """

    description: str
    size_multiple: int = 16
    smallest_batch: int = 1
    has_encoder: bool = True
    exports_free_size: bool = True
    extra: str | None = None


_library = functools.partial(NetworkTraits, size_multiple=32, extra="baselines")
"""A network of segmentation_models_pytorch; most halve the image five times."""

NETWORKS: dict[str, NetworkTraits] = {
    "etnet": NetworkTraits("ET-Net (Zhang et al., MICCAI 2019)"),
    "fcn": NetworkTraits("fully convolutional network (Shelhamer et al., TPAMI 2017) on the dilated encoder"),
    "mnet": NetworkTraits("M-Net (Fu et al., IEEE TMI 2018), from scratch", has_encoder=False),
    "multi_task": NetworkTraits("edges and regions from the same features (after DCAN, Chen et al., CVPR 2016)"),
    "unet": _library("U-Net (Ronneberger et al., MICCAI 2015)"),
    "unetplusplus": _library("U-Net++ (Zhou et al., DLMIA 2018)"),
    "manet": _library("MA-Net, multi-scale attention (Fan et al., IEEE Access 2020)"),
    "linknet": _library("LinkNet (Chaurasia and Culurciello, VCIP 2017)"),
    "fpn": _library("feature pyramid network (Kirillov et al., CVPR 2019)"),
    "pspnet": _library(
        "pyramid scene parsing network (Zhao et al., CVPR 2017)", size_multiple=16, exports_free_size=False
    ),
    "deeplabv3plus": _library("DeepLabV3+ (Chen et al., ECCV 2018)", size_multiple=16, smallest_batch=2),
}
"""The values of `model.name`."""


def unknown_network(name: str) -> str:
    """Half a sentence about a name that is not in `NETWORKS`.

    >>> unknown_network("unett")
    'there is no network of this name; did you mean unet?'
    """
    nearest = difflib.get_close_matches(name.lower(), NETWORKS, n=1)
    proposal = f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(NETWORKS)}"
    return f"there is no network of this name; {proposal}"
