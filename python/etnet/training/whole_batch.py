"""The loss of a whole batch whose parts lie in several processes.

The paper's loss takes the Lovasz extension of the IoU over all pixels of a batch. The mean of the losses of its parts
is another function, with another gradient. So every process gets the scores and targets of all, computes the loss of
the whole batch, and goes back through its own part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from etnet.config.schema import Recipe
from etnet.losses.edge_supervised import SegmentationOutput


def is_mean_over_images(recipe: Recipe) -> bool:
    """Whether the loss of a batch is the mean of the losses of equal parts, so that nothing need be gathered.

    With ignored pixels it is not: images without a pixel that counts are left out, and the cross-entropy is the mean
    over the pixels that do.
    """
    return recipe.loss.per_image and recipe.data.ignore_index is None


class WholeOutput(NamedTuple):
    """Scores of the whole batch, of which those of this process can be differentiated; see `SegmentationOutput`."""

    seg_logits: Tensor
    edge_logits: Tensor | None
    side_logits: Sequence[Tensor]


def whole_batch(output: SegmentationOutput, masks: Tensor, edges: Tensor) -> tuple[WholeOutput, Tensor, Tensor]:
    """Scores and targets of all processes, in the order of their ranks.

    The gradient of this process's scores is multiplied by the number of processes, because
    `DistributedDataParallel` divides the sum over processes by it.

    Args:
        output: Class scores [N, C, H, W], edge scores [N, 2, H, W] or None, side outputs; N is the same in all.
        masks: Class indices [N, H, W], 0..255.
        edges: Boundary band [N, H, W], 0..255.

    Returns:
        The same for N * processes samples; targets as uint8.
    """
    edge_logits = None if output.edge_logits is None else _joined(output.edge_logits)
    scores = WholeOutput(_joined(output.seg_logits), edge_logits, [_joined(side) for side in output.side_logits])
    # Class indices and the ignored one are bytes, see `DataSection`: an eighth of what int64 would send.
    return scores, _gather(masks.to(torch.uint8)), _gather(edges.to(torch.uint8))


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        ctx.count = len(part)
        return _gather(part)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        (gradient,) = gradients
        begin = dist.get_rank() * ctx.count
        own: Tensor = gradient[begin : begin + ctx.count] * dist.get_world_size()
        return own


def _joined(part: Tensor) -> Tensor:
    joined: Tensor = _Join.apply(part)
    return joined


def _gather(part: Tensor) -> Tensor:
    part = part.contiguous()
    everyone = [torch.empty_like(part) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, part)
    return torch.cat(everyone)
