"""The one place that hands tensor addresses to native code: allocates all memory, then calls the kernel."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from etnet import native
from etnet.errors import DataError, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

_ALIGNMENT = 256

LOGITS_TYPES = (torch.float32, torch.float16, torch.bfloat16)
TARGET_TYPES = (torch.uint8, torch.int32, torch.int64)


def gradient_like(logits: Tensor) -> Tensor:
    """Uninitialised float32 memory for the gradient [N, C, H, W], in the layout of the logits."""
    return torch.empty(logits.shape, dtype=torch.float32, device=logits.device, memory_format=_memory_format(logits))


def weights_like(logits: Tensor, *, per_image: bool, bins: int) -> Tensor:
    """Uninitialised float32 memory for the weights of the histogram's bins, [segments, tables, 2, bins]."""
    images, channels = logits.shape[:2]
    tables = 1 if channels == 2 else channels  # errors of two classes are equal
    return logits.new_empty((images if per_image else 1, tables, 2, bins), dtype=torch.float32)


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


def state_like(logits: Tensor, options: LovaszOptions) -> Tensor:
    """Memory for what the kernels leave for the backward pass: gradient (sort), weights (histogram), or nothing [0]."""
    if not options.need_gradient:
        return logits.new_empty(0, dtype=torch.float32)
    if options.method == "histogram":
        return weights_like(logits, per_image=options.per_image, bins=options.bins)
    return gradient_like(logits)


def lovasz_softmax(logits: Tensor, target: Tensor, options: LovaszOptions) -> tuple[Tensor, Tensor]:
    """Runs the kernel of csrc/include/etnet/ops/lovasz_softmax.hpp for the device of the logits.

    On the CPU with as many threads as torch uses; on CUDA it is enqueued on the current stream, without waiting for it.

    Args:
        logits: Class scores [N, C, H, W], float32, float16 or bfloat16.
        target: Class indices [N, H, W], uint8, int32 or int64, on the same device.
        options: What is computed.

    Returns:
        The loss, a float32 scalar, and what `state_like` describes.

    Raises:
        DataError: A target is neither a class index nor ignored (on CUDA: a NaN loss), or there are too many pixels.
        EnvironmentFault: The CUDA runtime reports an error.
    """
    kernels = native.require()
    state = state_like(logits, options)
    weights, gradient = state, state
    if options.method == "histogram" and not options.need_gradient:
        weights = weights_like(logits, per_image=options.per_image, bins=options.bins)
    classes = {"mode": options.mode, "listed": list(options.listed)}
    with _call(logits, target, options) as (sizes, buffers):
        if logits.device.type == "cpu":
            scratch = _scratch(kernels.lovasz_softmax_workspace_bytes(sizes), logits.device)
            packed = kernels.LovaszSoftmaxBuffers(**buffers, **_outputs(options, gradient, weights, scratch))
            return state.new_tensor(kernels.lovasz_softmax(sizes, packed, **classes)), state
        scratch = _scratch(kernels.lovasz_softmax_cuda_workspace_bytes(sizes), logits.device)
        packed = kernels.LovaszSoftmaxBuffers(**buffers, **_outputs(options, gradient, weights, scratch))
        loss = state.new_empty(())
        stream = torch.cuda.current_stream().cuda_stream
        kernels.lovasz_softmax_cuda(sizes, packed, **classes, loss=loss.data_ptr(), stream=stream)
        return loss, state


def lovasz_softmax_look_up(
    logits: Tensor, target: Tensor, weights: Tensor, scale: Tensor, options: LovaszOptions
) -> Tensor:
    """Gradient of the method "histogram" from the weights that `lovasz_softmax` returned for the same inputs.

    Args:
        logits: As for `lovasz_softmax`.
        target: As for `lovasz_softmax`.
        weights: Weights of the bins [segments, tables, 2, bins], float32.
        scale: What the gradient is multiplied with, a float32 scalar on the same device.
        options: As for `lovasz_softmax`.

    Returns:
        The gradient [N, C, H, W], float32, in the layout of the logits.
    """
    kernels = native.require()
    gradient = gradient_like(logits)
    weights, scale = weights.contiguous(), scale.float().contiguous()
    with _call(logits, target, options) as (sizes, buffers):
        outputs = {"gradient": gradient.data_ptr(), "weights": weights.data_ptr(), "scale": scale.data_ptr()}
        if logits.device.type == "cpu":
            scratch = _scratch(kernels.lovasz_softmax_workspace_bytes(sizes), logits.device)
            outputs |= {"workspace": scratch.data_ptr(), "workspace_bytes": scratch.numel()}
            kernels.lovasz_softmax_look_up(sizes, kernels.LovaszSoftmaxBuffers(**buffers, **outputs))
        else:
            packed = kernels.LovaszSoftmaxBuffers(**buffers, **outputs)
            kernels.lovasz_softmax_look_up_cuda(sizes, packed, stream=torch.cuda.current_stream().cuda_stream)
    return gradient


@contextmanager
def _call(logits: Tensor, target: Tensor, options: LovaszOptions) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Sizes and input buffers of a call on the device of the logits; translates the errors of the native part."""
    logits, target = logits.contiguous(memory_format=_memory_format(logits)), target.contiguous()
    inputs = {
        "logits": logits.data_ptr(),
        "logits_type": _type_name(logits),
        "target": target.data_ptr(),
        "target_type": _type_name(target),
        "ignore_index": options.ignore_index,
    }
    on_device = torch.cuda.device(logits.device) if logits.is_cuda else nullcontext()
    try:
        with on_device:
            yield _sizes(logits, options, threads=torch.get_num_threads()), inputs
    except ValueError as error:
        raise DataError(str(error)) from None
    except RuntimeError as error:
        raise EnvironmentFault(f"the native kernels failed on {logits.device}: {error}") from error


def _outputs(options: LovaszOptions, gradient: Tensor, weights: Tensor, scratch: Tensor) -> dict[str, int]:
    output = {"weights": weights} if options.method == "histogram" else {"gradient": gradient}
    addresses = {name: tensor.data_ptr() for name, tensor in output.items()}
    return addresses | {"workspace": scratch.data_ptr(), "workspace_bytes": scratch.numel()}


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


def _type_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _scratch(size: int, device: torch.device) -> Tensor:
    """Uninitialised bytes [size], uint8, at an aligned address."""
    memory = torch.empty(size + _ALIGNMENT, dtype=torch.uint8, device=device)
    offset = -memory.data_ptr() % _ALIGNMENT
    return memory[offset : offset + size]
