"""Total loss of ET-Net: regions and edges, both by Lovasz-Softmax (paper Sec. 2.1 and 2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from etnet.errors import UsageError
from etnet.losses.lovasz_cross_entropy import LovaszCrossEntropy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etnet.ops.lovasz import Method


class SegmentationOutput(Protocol):
    """What the loss needs of a network's output; `etnet.models.ETNetOutput` is one.

    Attributes:
        seg_logits: Class scores [N, C, H, W].
        edge_logits: Scores of no edge and edge [N, 2, H, W]; None for a network without edge guidance.
        side_logits: Class scores of earlier layers, each [N, C, H, W]; empty for most networks.
    """

    @property
    def seg_logits(self) -> Tensor: ...  # noqa: D102
    @property
    def edge_logits(self) -> Tensor | None: ...  # noqa: D102
    @property
    def side_logits(self) -> Sequence[Tensor]: ...  # noqa: D102


class LossTerms(NamedTuple):
    """The loss and its parts, all scalars.

    Attributes:
        total: What is minimised.
        seg: Loss of the regions; the mean over all outputs for a network with side outputs.
        edge: Loss of the edges; 0 for a network without edge guidance.
    """

    total: Tensor
    seg: Tensor
    edge: Tensor


class EdgeSupervisedLoss(nn.Module):
    """total = alpha * seg + (1 - alpha) * edge (paper Sec. 2.2); without edge logits, total = seg.

    seg is the Lovasz-Softmax of the class scores, edge that of the edge scores.

    Ours: where a network has side outputs (M-Net), seg is the mean over the class scores and the side outputs, so that
    `alpha` keeps its meaning. Both terms can be mixed with the cross-entropy, see `LovaszCrossEntropy`.

    Args:
        alpha: Share of the regions, 0..1; the paper's value is 0.3.
        cross_entropy: Share of the cross-entropy in both terms, 0..1; the paper has none.
        classes: Classes that the region term averages over, see `LovaszSoftmax`; the edge term takes those present.
        per_image: Whether both terms are taken image by image; otherwise over all pixels of the batch.
        ignore_index: Target value, in masks and edges, of pixels that are left out.
        method: How both terms are computed, see `LovaszSoftmax`.

    Raises:
        UsageError: `alpha` or `cross_entropy` is outside 0..1, or `classes` or `method` is not understood.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        *,
        cross_entropy: float = 0.0,
        classes: Literal["present", "all"] | Sequence[int] = "present",
        per_image: bool = False,
        ignore_index: int | None = None,
        method: Method = "auto",
    ) -> None:
        super().__init__()
        if not 0.0 <= alpha <= 1.0:
            raise UsageError(f"EdgeSupervisedLoss: alpha is {alpha}; expected a number in 0..1")
        self.alpha = alpha
        self.seg_loss = LovaszCrossEntropy(cross_entropy, classes, per_image, ignore_index, method)
        self.edge_loss = LovaszCrossEntropy(cross_entropy, "present", per_image, ignore_index, method)

    def forward(self, output: SegmentationOutput, masks: Tensor, edges: Tensor) -> LossTerms:
        """Loss of a network's output.

        Args:
            output: Class scores [N, C, H, W], edge scores [N, 2, H, W] or None, and side outputs [N, C, H, W].
            masks: Class indices [N, H, W], integer.
            edges: 1 on boundary bands, 0 elsewhere, [N, H, W], integer.

        Returns:
            The total and its two terms, scalars.
        """
        seg = torch.stack([self.seg_loss(logits, masks) for logits in (output.seg_logits, *output.side_logits)]).mean()
        if output.edge_logits is None:
            return LossTerms(seg, seg, seg.new_zeros(()))
        edge = self.edge_loss(output.edge_logits, edges)
        return LossTerms(self.alpha * seg + (1 - self.alpha) * edge, seg, edge)
