"""Lovasz-Softmax as a module (paper eq. 1; Berman et al. 2018); the computation is `etnet.ops.lovasz`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import nn

from etnet.ops.lovasz import DEFAULT_BINS, Method, check_classes, check_method, lovasz_softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class LovaszSoftmax(nn.Module):
    """Smooth surrogate of 1 - IoU, averaged over classes.

    Args:
        classes: `"present"` averages over the classes that occur in the target, `"all"` over all of them, a list over
            the classes in it whether they occur or not.
        per_image: Whether the loss is taken image by image and averaged; otherwise over all pixels of the batch.
        ignore_index: Target value of pixels that are left out.
        method: `"auto"` (exact), `"sort"` (exact), `"histogram"` (faster, rounds the errors) or `"reference"` (exact,
            plain torch), see `etnet.ops.lovasz.lovasz_softmax`.
        bins: Number of bins for `"histogram"`; its loss is at most 1 / (2 (bins - 1)) off.

    Raises:
        UsageError: `classes`, `method` or `bins` is none of those allowed.

    Example:
        >>> import torch
        >>> loss = LovaszSoftmax(ignore_index=255)
        >>> logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
        >>> loss(logits, torch.zeros(1, 4, 4, dtype=torch.int64)).item()
        0.5
    """

    def __init__(
        self,
        classes: Literal["present", "all"] | Sequence[int] = "present",
        per_image: bool = False,
        ignore_index: int | None = None,
        method: Method = "auto",
        bins: int = DEFAULT_BINS,
    ) -> None:
        super().__init__()
        check_classes(classes)
        check_method(method, bins)
        self.classes: Literal["present", "all"] | Sequence[int] = (
            classes if isinstance(classes, str) else tuple(classes)
        )
        self.per_image = per_image
        self.ignore_index = ignore_index
        self.method: Method = method
        self.bins = bins

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of class scores.

        Args:
            logits: Class scores [N, C, H, W], floating point.
            target: Class indices [N, H, W], uint8 or another integer type.

        Returns:
            The loss, a float32 scalar in 0..1.
        """
        return lovasz_softmax(
            logits,
            target,
            classes=self.classes,
            per_image=self.per_image,
            ignore_index=self.ignore_index,
            method=self.method,
            bins=self.bins,
        )

    def extra_repr(self) -> str:
        """The options, for `print(model)`."""
        return f"classes={self.classes!r}, per_image={self.per_image}, ignore_index={self.ignore_index}"
