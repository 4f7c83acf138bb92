"""The one place that hands tensor addresses to native code: allocates all memory, then calls the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from etnet import native
from etnet.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_ALIGNMENT = 64


def lovasz_softmax(
    logits: Tensor,
    target: Tensor,
    *,
    mode: str,
    listed: Sequence[int],
    per_image: bool,
    ignore_index: int | None,
    need_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Runs the native CPU kernel of csrc/include/etnet/ops/lovasz_softmax.hpp on as many threads as torch uses.

    Args:
        logits: Class scores [N, C, H, W], float32, CPU.
        target: Class indices [N, H, W], int64 or uint8, CPU.
        mode: `"present"`, `"all"` or `"listed"`.
        listed: The classes that count in mode `"listed"`.
        per_image: Whether each image is a segment of its own.
        ignore_index: Target value of pixels that are left out.
        need_gradient: Whether to compute the gradient.

    Returns:
        The loss, a float32 scalar, and its gradient [N, C, H, W], float32 contiguous (or [0] if not needed).

    Raises:
        DataError: A target is neither a class index nor ignored.
    """
    kernels = native.require()
    logits, target = logits.contiguous(), target.contiguous()
    images, channels, height, width = logits.shape
    gradient = logits.new_empty(logits.shape if need_gradient else (0,))
    threads = torch.get_num_threads()
    sizes = {"images": images, "channels": channels, "height": height, "width": width, "per_image": per_image}
    scratch = _scratch(kernels.lovasz_softmax_workspace_bytes(**sizes, threads=threads))
    try:
        loss = kernels.lovasz_softmax(
            logits=logits.data_ptr(),
            target=target.data_ptr(),
            target_bytes=target.element_size(),
            **sizes,
            mode=mode,
            listed=list(listed),
            ignore_index=ignore_index,
            gradient=gradient.data_ptr(),
            workspace=scratch.data_ptr(),
            workspace_size=scratch.numel(),
            threads=threads,
        )
    except ValueError as error:
        raise DataError(str(error)) from None
    return logits.new_tensor(loss), gradient


def _scratch(size: int) -> Tensor:
    """Uninitialised bytes [size], uint8, at an aligned address."""
    memory = torch.empty(size + _ALIGNMENT, dtype=torch.uint8)
    offset = -memory.data_ptr() % _ALIGNMENT
    return memory[offset : offset + size]
