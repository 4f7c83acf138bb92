"""The one place that hands tensor addresses to native code: allocates all memory, then calls the kernel."""

from __future__ import annotations

import functools
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

FLOAT_TYPES = (torch.float32, torch.float16, torch.bfloat16)
"""What the kernels read; everything is computed in float32."""
TARGET_TYPES = (torch.uint8, torch.int32, torch.int64)


def gradient_like(logits: Tensor) -> Tensor:
    """Uninitialised float32 memory for the gradient [N, C, H, W], in the layout of the logits."""
    return torch.empty(logits.shape, dtype=torch.float32, device=logits.device, memory_format=_memory_format(logits))


def map_like(x: Tensor) -> Tensor:
    """Uninitialised memory for a map [N, C, H, W], in the type and layout in which the kernels read `x`."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=_memory_format(x))


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
    with _on_device(logits.device):
        yield _sizes(logits, options, threads=torch.get_num_threads()), inputs


@contextmanager
def _on_device(device: torch.device) -> Iterator[None]:
    """Makes a CUDA device the current one; translates the errors of the native part."""
    try:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            yield
    except ValueError as error:
        raise DataError(str(error)) from None
    except RuntimeError as error:
        raise EnvironmentFault(f"the native kernels failed on {device}: {error}") from error


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


def weighted_block(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> tuple[Tensor, Tensor]:
    """Runs the forward pass of csrc/include/etnet/ops/weighted_block.hpp for the device of the map.

    Args:
        x: Map [N, C, H, W], float32, float16 or bfloat16, not empty.
        w1: Matrix [R, C]; all parameters are of one type of these three, on the device of the map.
        b1: Bias [R].
        w2: Matrix [C, R].
        b2: Bias [C].

    Returns:
        The weighed map, of the type and layout of `x`, and the state [N, 2 C + R], float32, for the backward pass.

    Raises:
        DataError: The map is larger than the kernels take.
        EnvironmentFault: The CUDA runtime reports an error.
    """
    x = x.contiguous(memory_format=_memory_format(x))
    inputs = {"w1": w1.contiguous(), "b1": b1.contiguous(), "w2": w2.contiguous(), "b2": b2.contiguous()}
    outputs = {"out": map_like(x), "state": weighted_block_state_like(x, w1)}
    _run_weighted_block("weighted_block", x, w1, inputs | outputs)
    return outputs["out"], outputs["state"]


def weighted_block_backward(
    gradient: Tensor, x: Tensor, state: Tensor, w1: Tensor, w2: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Runs the backward pass.

    Args:
        gradient: Gradient with respect to the weighed map [N, C, H, W], of the type of `x`.
        x: As for `weighted_block`.
        state: What `weighted_block` returned.
        w1: As for `weighted_block`.
        w2: As for `weighted_block`.

    Returns:
        Gradients with respect to `x`, of its type and layout, and to `w1`, `b1`, `w2`, `b2`, float32.
    """
    memory_format = _memory_format(x)
    x, gradient = x.contiguous(memory_format=memory_format), gradient.contiguous(memory_format=memory_format)
    inputs = {"gradient_out": gradient, "state": state.contiguous(), "w1": w1.contiguous(), "w2": w2.contiguous()}
    names = ("gradient_x", "gradient_w1", "gradient_b1", "gradient_w2", "gradient_b2")
    gradients = weighted_block_gradients_like(x, w1, w2)
    outputs = dict(zip(names, gradients, strict=True))
    _run_weighted_block("weighted_block_backward", x, w1, inputs | outputs)
    return gradients


def weighted_block_state_like(x: Tensor, w1: Tensor) -> Tensor:
    """Uninitialised memory for mean, hidden and scale of every image, [N, C + R + C], float32."""
    return torch.empty((x.shape[0], 2 * x.shape[1] + w1.shape[0]), dtype=torch.float32, device=x.device)


def weighted_block_gradients_like(x: Tensor, w1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Uninitialised memory for the gradients of map and parameters; those of the parameters are float32."""
    w1, w2 = (torch.empty(matrix.shape, dtype=torch.float32, device=x.device) for matrix in (w1, w2))
    return map_like(x), w1, torch.empty_like(w1[:, 0]), w2, torch.empty_like(w2[:, 0])


def _run_weighted_block(function: str, x: Tensor, w1: Tensor, tensors: dict[str, Tensor]) -> None:
    kernels = native.require()
    addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    key = (*x.shape, w1.shape[0], _memory_format(x), x.dtype, w1.dtype)
    with _on_device(x.device):
        if not x.is_cuda:
            sizes, needed = _weighted_block_sizes("weighted_block_workspace_bytes", torch.get_num_threads(), *key)
            scratch = _scratch(needed, x.device)
            getattr(kernels, function)(
                sizes, x=x.data_ptr(), **addresses, workspace=scratch.data_ptr(), workspace_bytes=needed
            )
            return
        sizes, needed = _weighted_block_sizes("weighted_block_cuda_workspace_bytes", 1, *key)
        scratch = _scratch(needed, x.device)
        getattr(kernels, function + "_cuda")(
            sizes,
            x=x.data_ptr(),
            **addresses,
            workspace=scratch.data_ptr(),
            workspace_bytes=needed,
            stream=torch.cuda.current_stream().cuda_stream,
        )


@functools.lru_cache(maxsize=256)
def _weighted_block_sizes(
    function: str,
    threads: int,
    images: int,
    channels: int,
    height: int,
    width: int,
    hidden: int,
    layout: torch.memory_format,
    dtype: torch.dtype,
    parameter_type: torch.dtype,
) -> tuple[Any, int]:
    """Sizes of a call and the scratch memory that it needs; kept, because a network asks for the same ones again."""
    kernels = native.require()
    sizes = kernels.WeightedBlockSizes(
        images=images,
        channels=channels,
        hidden=hidden,
        height=height,
        width=width,
        channels_last=layout == torch.channels_last,
        x_type=_name(dtype),
        parameter_type=_name(parameter_type),
        threads=threads,
    )
    return sizes, getattr(kernels, function)(sizes)


def _type_name(tensor: Tensor) -> str:
    return _name(tensor.dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _scratch(size: int, device: torch.device) -> Tensor:
    """Uninitialised bytes [size], uint8, at an aligned address."""
    memory = torch.empty(size + _ALIGNMENT, dtype=torch.uint8, device=device)
    offset = -memory.data_ptr() % _ALIGNMENT
    return memory[offset : offset + size]
