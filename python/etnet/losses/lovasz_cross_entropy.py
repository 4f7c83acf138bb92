"""Lovasz-Softmax mixed with the cross-entropy, which the paper does not do (it uses eq. 1 alone)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn
from torch.nn import functional

from etnet.errors import UsageError
from etnet.losses.lovasz_softmax import LovaszSoftmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etnet.ops.lovasz import Method


class LovaszCrossEntropy(nn.Module):
    """(1 - share) * Lovasz-Softmax + share * cross-entropy.

    Ours: Lovasz-Softmax alone has next to no gradient where a pixel is wrong and sure of it, because it goes through
    p (1 - p); the cross-entropy has its largest there. With a share of 0, the paper's, it is not computed.

    The cross-entropy is the mean over all pixels that count, also under `per_image` and whatever `classes` says, in
    nats; it is 0 where no pixel counts.

    Args:
        share: Share of the cross-entropy, 0..1.
        classes: See `LovaszSoftmax`.
        per_image: See `LovaszSoftmax`.
        ignore_index: Target value of pixels that are left out.
        method: See `LovaszSoftmax`.

    Raises:
        UsageError: `share` is outside 0..1, or another option is none of those allowed.

    Example:
        >>> import torch
        >>> loss = LovaszCrossEntropy(0.5)
        >>> round(loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)).item(), 4)
        0.5966
    """

    def __init__(
        self,
        share: float = 0.0,
        classes: Literal["present", "all"] | Sequence[int] = "present",
        per_image: bool = False,
        ignore_index: int | None = None,
        method: Method = "auto",
    ) -> None:
        super().__init__()
        if not 0.0 <= share <= 1.0:
            raise UsageError(f"cross_entropy is {share}; expected a share in 0..1")
        self.share = share
        self.lovasz = LovaszSoftmax(classes, per_image, ignore_index, method)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of class scores.

        Args:
            logits: Class scores [N, C, H, W], floating point.
            target: Class indices [N, H, W], uint8 or another integer type.

        Returns:
            The loss, a float32 scalar.
        """
        # First and always: it says what is wrong with a target that holds no class.
        lovasz: Tensor = self.lovasz(logits, target)
        if self.share == 0.0:
            return lovasz
        return (1 - self.share) * lovasz + self.share * self._cross_entropy(logits, target)

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        ignored = self.lovasz.ignore_index
        # Summed here and not by torch, whose sum of pixels takes another order on a GPU each time, and whose mean is
        # NaN for a batch without a pixel that counts.
        if ignored is None:
            return functional.cross_entropy(logits.float(), target.long(), reduction="none").mean()
        losses = functional.cross_entropy(logits.float(), target.long(), ignore_index=ignored, reduction="none")
        return losses.sum() / (target != ignored).sum().clamp(min=1)

    def extra_repr(self) -> str:
        """The option, for `print(model)`."""
        return f"share={self.share}"
