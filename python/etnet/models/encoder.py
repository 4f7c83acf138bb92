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

STEM_STRIDE = 2
"""Stride of the map before E-Block 1, which `model.high_resolution` reads."""

BACKBONE_OPTIONS: dict[str, Any] = {
    "features_only": True,
    "output_stride": OUTPUT_STRIDE,
    "out_indices": (-4, -3, -2, -1),
}
"""How timm is asked for the four maps; the same for random and for pretrained weights."""


class Encoder(nn.Module):
    """Four feature maps of a timm backbone, E-Blocks 1 to 4 (paper Sec. 2; ResNet-50 there).

    The weights are random, as timm initialises them; nothing is downloaded.

    Ours: with `with_stem` the map of stride 2 between the image and E-Block 1 is given too. The tensors are the same.

    Args:
        name: A timm model with feature maps of strides 4, 8, 16 and a last stage that can be dilated, for instance
            `resnet50`, `resnet18`, `mobilenetv2_100`, `convnext_tiny`. A pretrained tag may follow a dot
            (`resnet50.tv_in1k`); it says which weights `imagenet` stands for.
        with_stem: Whether the map of stride 2 comes before the others; ResNets have one, ConvNeXts do not.

    Attributes:
        name: As given.
        channels: Channels of the maps: of the stem, if asked for, and of E1 to E4.
        features: The timm backbone.
        options: How timm was asked for it.

    Raises:
        UsageError: timm has no such model, or it does not give maps of strides (2,) 4, 8, 16, 16.
    """

    def __init__(self, name: str, *, with_stem: bool = False) -> None:
        super().__init__()
        self.name = name
        self.options = backbone_options(with_stem=with_stem)
        self.features = create_backbone(name, with_stem=with_stem)
        self.channels: tuple[int, ...] = tuple(feature_info(self.features).channels())

    def forward(self, image: Tensor) -> list[Tensor]:
        """Encode.

        Args:
            image: Normalised image [N, 3, H, W], float; H and W multiples of 16.

        Returns:
            E1 to E4: [N, channels[i], H / s, W / s] for s in 4, 8, 16, 16; with a stem, its map of s = 2 before them.
        """
        stages: list[Tensor] = self.features(image)
        return stages


def backbone_options(*, with_stem: bool) -> dict[str, Any]:
    """Arguments of `timm.create_model` for an encoder."""
    if not with_stem:
        return BACKBONE_OPTIONS
    indices = BACKBONE_OPTIONS["out_indices"]
    return {**BACKBONE_OPTIONS, "out_indices": (indices[0] - 1, *indices)}


def create_backbone(name: str, *, with_stem: bool = False) -> nn.Module:
    """Build the timm feature extractor behind an encoder, with random weights.

    Args:
        name: As for `Encoder`.
        with_stem: As for `Encoder`.

    Returns:
        A timm feature extractor of four maps with strides 4, 8, 16, 16; with a stem, of five, the first of stride 2.

    Raises:
        UsageError: See `Encoder`.
    """
    check_name(name)
    try:
        backbone: nn.Module = timm.create_model(name, pretrained=False, **backbone_options(with_stem=with_stem))
    except (TypeError, ValueError, AssertionError, NotImplementedError, IndexError) as error:
        # The ways in which timm says that a family knows no feature maps, no output stride or not so many maps.
        if with_stem:
            create_backbone(name)
            raise UsageError(_without_stem(name)) from error
        raise UsageError(f"{_unfit(name)} ({described(error)}).") from error
    strides = tuple(feature_info(backbone).reduction())
    if strides[-len(STAGE_STRIDES) :] != STAGE_STRIDES:
        raise UsageError(f"{_unfit(name)}: it gives maps of strides {list(strides)}.")
    if with_stem and strides[0] != STEM_STRIDE:
        raise UsageError(_without_stem(name))
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


def _without_stem(name: str) -> str:
    return (
        f"model.high_resolution=true: the encoder {name} has no map of stride {STEM_STRIDE} before its stages; take "
        "one that has, for instance resnet50, resnet18 or mobilenetv2_100, or leave model.high_resolution out"
    )


def _unknown_encoder(name: str) -> str:
    known = timm.list_pretrained() if "." in name else timm.list_models()
    nearest = difflib.get_close_matches(name, known, n=3)
    proposal = f"did you mean {' or '.join(nearest)}?" if nearest else "resnet50 is the paper's encoder."
    return f"model.encoder={name}: timm {timm.__version__} has no model of this name; {proposal}"
