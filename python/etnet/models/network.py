"""What all networks have in common: the batch that they take and the logits that they give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from etnet.errors import UsageError


class ETNetOutput(NamedTuple):
    """What a network computes for a batch of images.

    Attributes:
        seg_logits: Class scores before softmax [N, C, H, W], float.
        edge_logits: Interior and boundary scores before softmax [N, 2, H, W], float; None for a network that predicts
            no edges.
        side_logits: Class scores of earlier layers that are supervised too, each [N, C, H, W], float; those of M-Net,
            whose prediction is their mean.
    """

    seg_logits: Tensor
    edge_logits: Tensor | None
    side_logits: tuple[Tensor, ...] = ()


class Backbone(Protocol):
    """The part of a network that can start from published weights."""

    @property
    def name(self) -> str:
        """Name of the timm model; a tag after a dot says which weights `imagenet` stands for."""

    @property
    def features(self) -> nn.Module:
        """The timm feature extractor."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Arguments with which `timm.create_model` makes another one of the same tensors."""


class SegmentationNetwork(nn.Module):
    """Base of the networks; `forward` maps images [N, 3, H, W], float, to an `ETNetOutput`.

    Args:
        num_classes: Classes, background included.
        has_edges: Whether the output has edge logits.
        size_multiple: Height and width must be multiples of this many pixels.

    Attributes:
        num_classes: As given.
        has_edges: As given.
        size_multiple: As given.
        encoder: What `load_encoder_weights` sets; None for a network without a backbone.
    """

    encoder: Backbone | None

    def __init__(self, num_classes: int, *, has_edges: bool, size_multiple: int = 16) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.has_edges = has_edges
        self.size_multiple = size_multiple

    def check_images(self, image: Tensor) -> None:
        """Refuse a batch that the network cannot take.

        Args:
            image: Candidate for [N, 3, H, W], float, H and W positive multiples of `size_multiple`.

        Raises:
            UsageError: Says what the batch is and, where the size is wrong, to which size to pad.
        """
        name, multiple = type(self).__name__, self.size_multiple
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise UsageError(
                f"{name} got images of shape {list(image.shape)} and {image.dtype}; "
                "expected normalised floating point [N, 3, H, W]."
            )
        height, width = image.shape[2], image.shape[3]
        if height < 1 or width < 1 or height % multiple or width % multiple:
            padded = [max(multiple, -(-side // multiple) * multiple) for side in (height, width)]
            raise UsageError(
                f"{name} got images of {height}x{width} pixels (height x width); expected multiples of {multiple}: "
                f"pad them to {padded[0]}x{padded[1]}."
            )
