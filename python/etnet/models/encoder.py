"""The encoder: four stages of any timm backbone, the last one dilated (paper Sec. 2 and 2.3)."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, cast

import timm
from torch import Tensor, nn

from etnet.errors import UsageError

if TYPE_CHECKING:
    from timm.models import FeatureInfo

STAGE_STRIDES = (4, 8, 16, 16)
"""Strides of E-Blocks 1 to 4: "a dilation strategy is used in E-Block 4, with an output stride of 1/16" (Sec. 2.3)."""

OUTPUT_STRIDE = STAGE_STRIDES[-1]

BACKBONE_OPTIONS: dict[str, Any] = {
    "features_only": True,
    "output_stride": OUTPUT_STRIDE,
    "out_indices": (-4, -3, -2, -1),
}
"""How timm is asked for the four maps; the same for random and for pretrained weights."""


class Encoder(nn.Module):
    """Four feature maps of a timm backbone, E-Blocks 1 to 4 (paper Sec. 2; ResNet-50 there).

    The weights are random, as timm initialises them; nothing is downloaded.

    Args:
        name: A timm model with feature maps of strides 4, 8, 16 and a last stage that can be dilated, for instance
            `resnet50`, `resnet18`, `mobilenetv2_100`, `convnext_tiny`. A pretrained tag may follow a dot
            (`resnet50.tv_in1k`); it says which weights `imagenet` stands for.

    Attributes:
        name: As given.
        channels: Channels of E1 to E4.
        features: The timm backbone.
        options: How timm was asked for it.

    Raises:
        UsageError: timm has no such model, or it does not give four maps of strides 4, 8, 16, 16.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.options = BACKBONE_OPTIONS
        self.features = create_backbone(name)
        self.channels: tuple[int, ...] = tuple(feature_info(self.features).channels())

    def forward(self, image: Tensor) -> list[Tensor]:
        """Encode.

        Args:
            image: Normalised image [N, 3, H, W], float; H and W multiples of 16.

        Returns:
            E1 to E4: [N, channels[i], H / s, W / s] for s in 4, 8, 16, 16.
        """
        stages: list[Tensor] = self.features(image)
        return stages


def create_backbone(name: str) -> nn.Module:
    """Build the timm feature extractor behind an encoder, with random weights.

    Args:
        name: As for `Encoder`.

    Returns:
        A timm feature extractor of four maps with strides 4, 8, 16, 16.

    Raises:
        UsageError: See `Encoder`.
    """
    check_name(name)
    try:
        backbone: nn.Module = timm.create_model(name, pretrained=False, **BACKBONE_OPTIONS)
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        # The ways in which timm says that a family knows no feature maps or no output stride.
        raise UsageError(f"{_unfit(name)} ({described(error)}).") from error
    strides = tuple(feature_info(backbone).reduction())
    if strides != STAGE_STRIDES:
        raise UsageError(f"{_unfit(name)}: it gives maps of strides {list(strides)}.")
    return backbone


def check_name(name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        UsageError: Proposes names that are near.
    """
    if not timm.is_model(name) or ("." in name and not timm.is_model_pretrained(name)):
        raise UsageError(_unknown_encoder(name))


def described(error: BaseException) -> str:
    """Kind of an error and what it says."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def feature_info(backbone: nn.Module) -> FeatureInfo:
    """What timm knows about the maps of a feature extractor: their channels, strides and names."""
    return cast("FeatureInfo", backbone.feature_info)


def _unfit(name: str) -> str:
    return (
        f"model.encoder={name}: expected a backbone with four feature maps of strides {list(STAGE_STRIDES)}, "
        "for instance resnet50, resnet18, mobilenetv2_100 or convnext_tiny, but timm cannot build this one so"
    )


def _unknown_encoder(name: str) -> str:
    known = timm.list_pretrained() if "." in name else timm.list_models()
    nearest = difflib.get_close_matches(name, known, n=3)
    proposal = f"did you mean {' or '.join(nearest)}?" if nearest else "resnet50 is the paper's encoder."
    return f"model.encoder={name}: timm {timm.__version__} has no model of this name; {proposal}"
