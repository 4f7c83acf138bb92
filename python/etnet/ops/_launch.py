"""The one place that hands tensor addresses to native code: allocates all memory, then calls the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from etnet import native
from etnet.errors import DataError, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_ALIGNMENT = 256

LOGITS_TYPES = (torch.float32, torch.float16, torch.bfloat16)
TARGET_TYPES = (torch.uint8, torch.int32, torch.int64)


def gradient_like(logits: Tensor, *, needed: bool = True) -> Tensor:
    """Uninitialised float32 memory for the gradient [N, C, H, W] in the layout of the logits, or [0] if not needed."""
    if not needed:
        return logits.new_empty(0, dtype=torch.float32)
    return torch.empty(logits.shape, dtype=torch.float32, device=logits.device, memory_format=_memory_format(logits))


def _memory_format(logits: Tensor) -> torch.memory_format:
    """Channels-last for logits that lie so; everything else is read as, or copied to, contiguous memory."""
    if not logits.is_contiguous() and logits.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


@dataclass(frozen=True)
class LovaszOptions:
    """Options of the Lovasz-Softmax kernels, in the order of the operator's arguments."""

    mode: str
    """`"present"`, `"all"` or `"listed"`."""
    listed: Sequence[int]
    """The classes that count in mode `"listed"`."""
    per_image: bool
    """Whether each image is a segment of its own."""
    ignore_index: int | None
    """Target value of pixels that are left out."""
    method: str
    """`"sort"` or `"histogram"`."""
    bins: int
    """Number of bins of the histogram."""
    need_gradient: bool
    """Whether to compute the gradient."""


def lovasz_softmax(logits: Tensor, target: Tensor, options: LovaszOptions) -> tuple[Tensor, Tensor]:
    """Runs the native CPU kernel of csrc/include/etnet/ops/lovasz_softmax.hpp on as many threads as torch uses.

    Args:
        logits: Class scores [N, C, H, W], float32, float16 or bfloat16, CPU.
        target: Class indices [N, H, W], uint8, int32 or int64, CPU.
        options: What is computed.

    Returns:
        The loss, a float32 scalar, and its gradient [N, C, H, W], float32 in the layout of the logits (or [0] if not
        needed).

    Raises:
        DataError: A target is neither a class index nor ignored.
    """
    kernels = native.require()
    memory_format = _memory_format(logits)
    logits, target = logits.contiguous(memory_format=memory_format), target.contiguous()
    gradient = gradient_like(logits, needed=options.need_gradient)
    sizes = _sizes(logits, options, threads=torch.get_num_threads())
    scratch = _scratch(kernels.lovasz_softmax_workspace_bytes(sizes), logits.device)
    try:
        loss = kernels.lovasz_softmax(sizes, **_buffers(logits, target, options, gradient, scratch))
    except ValueError as error:
        raise DataError(str(error)) from None
    return gradient.new_tensor(loss), gradient


def lovasz_softmax_cuda(logits: Tensor, target: Tensor, options: LovaszOptions) -> tuple[Tensor, Tensor]:
    """Enqueues csrc/include/etnet/ops/lovasz_softmax_cuda.hpp on the current stream, without waiting for it.

    Args:
        logits: Class scores [N, C, H, W], float32, float16 or bfloat16, on a CUDA device.
        target: Class indices [N, H, W], uint8, int32 or int64, on the same device.
        options: What is computed.

    Returns:
        As `lovasz_softmax`, on the device; NaN where a target is neither a class index nor ignored.

    Raises:
        DataError: There are too many pixels for the device version.
        EnvironmentFault: The CUDA runtime reports an error.
    """
    kernels = native.require()
    memory_format = _memory_format(logits)
    logits, target = logits.contiguous(memory_format=memory_format), target.contiguous()
    gradient = gradient_like(logits, needed=options.need_gradient)
    loss = gradient.new_empty(())
    sizes = _sizes(logits, options, threads=1)
    try:
        with torch.cuda.device(logits.device):
            scratch = _scratch(kernels.lovasz_softmax_cuda_workspace_bytes(sizes), logits.device)
            stream = torch.cuda.current_stream().cuda_stream
            buffers = _buffers(logits, target, options, gradient, scratch)
            kernels.lovasz_softmax_cuda(sizes, **buffers, loss=loss.data_ptr(), stream=stream)
    except ValueError as error:
        raise DataError(str(error)) from None
    except RuntimeError as error:
        raise EnvironmentFault(f"the CUDA kernels failed on {logits.device}: {error}") from error
    return loss, gradient


def _sizes(logits: Tensor, options: LovaszOptions, *, threads: int) -> Any:
    images, channels, height, width = logits.shape
    return native.require().LovaszSoftmaxSizes(
        images=images,
        channels=channels,
        height=height,
        width=width,
        per_image=options.per_image,
        channels_last=_memory_format(logits) == torch.channels_last,
        with_gradient=options.need_gradient,
        method=options.method,
        bins=options.bins,
        threads=threads,
    )


def _buffers(
    logits: Tensor, target: Tensor, options: LovaszOptions, gradient: Tensor, scratch: Tensor
) -> dict[str, Any]:
    return {
        "logits": logits.data_ptr(),
        "logits_type": _type_name(logits),
        "target": target.data_ptr(),
        "target_type": _type_name(target),
        "mode": options.mode,
        "listed": list(options.listed),
        "ignore_index": options.ignore_index,
        "gradient": gradient.data_ptr(),
        "workspace": scratch.data_ptr(),
        "workspace_size": scratch.numel(),
    }


def _type_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _scratch(size: int, device: torch.device) -> Tensor:
    """Uninitialised bytes [size], uint8, at an aligned address."""
    memory = torch.empty(size + _ALIGNMENT, dtype=torch.uint8, device=device)
    offset = -memory.data_ptr() % _ALIGNMENT
    return memory[offset : offset + size]
