"""Weighted block (squeeze-excite of paper Fig. 2b) as a torch operator with its gradients.

`torch.ops.etnet.weighted_block` works under torch.compile, torch.export and autocast. What runs behind it:

    CPU   the native kernel; the twin of etnet.ops.reference where the native module is missing (with one warning)
    CUDA  the native kernel where the module was built with CUDA, else the twin; only asked for by name, because no GPU
          has run it yet

The kernels read the map twice and write it once, forward, and read map and gradient once and the gradient twice,
backward; nothing else of the size of the map is kept or written. What stays for the backward pass, beside the map, is
mean, hidden units and scale of every image.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from etnet import native
from etnet.errors import EnvironmentFault, UsageError
from etnet.ops import _launch, reference

_LIBRARY = torch.library.Library("etnet", "FRAGMENT")
_LIBRARY.define("weighted_block(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2) -> (Tensor out, Tensor state)")
_LIBRARY.define(
    "weighted_block_backward(Tensor gradient, Tensor x, Tensor state, Tensor w1, Tensor w2) -> "
    "(Tensor gradient_x, Tensor gradient_w1, Tensor gradient_b1, Tensor gradient_w2, Tensor gradient_b2)"
)

_Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

Method = Literal["auto", "native", "reference"]
"""How the block is computed, see `weighted_block`."""

PLAIN_BELOW = {"training": 2**18, "inference": 2**23}
"""Numbers of a float32 map on the CPU below which plain torch is faster than the kernel, with and without gradient."""


def weighted_block(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, *, method: Method = "auto") -> Tensor:
    """Weighs the channels of a map by its global context: x * sigmoid(w2 relu(w1 mean(x) + b1) + b2) (paper Fig. 2b).

    Everything between reading `x` and writing the result is float32, also under autocast: parameters may stay float32
    beside a map of half precision, and no copy of them in lower precision is made. The result does not depend on the
    number of threads, and is the same on every run. Gradients may be differentiated again.

    On the CPU `"auto"` takes the twin where measurement found it faster (`PLAIN_BELOW`): for small float32 maps, where
    the call costs more than the work, and without gradient for float32 maps up to 32 MiB, where the twin's three passes
    are as few as the kernel's. The two differ in the last places.

    Args:
        x: Map [N, C, H, W], float32, float16 or bfloat16, contiguous or channels-last (anything else is copied);
            float64 is computed in float64 by the twin, for checks.
        w1: Matrix [R, C] of the first 1x1 convolution, floating point.
        b1: Its bias [R].
        w2: Matrix [C, R] of the second one.
        b2: Its bias [C].
        method: `"native"` is the kernel; `"reference"` plain torch; `"auto"` the faster one of those that there are.

    Returns:
        The weighed map [N, C, H, W], of the type and layout of `x`.

    Raises:
        UsageError: Shapes, types or devices do not fit, or the method is unknown.
        DataError: The map has more than 2^33 numbers.
        EnvironmentFault: `"native"` was asked for where there is no kernel.

    Example:
        >>> x = torch.ones(1, 2, 3, 3)
        >>> zero = torch.zeros(2, 2)
        >>> float(weighted_block(x, zero, zero[0], zero, zero[0]).sum())
        9.0
    """
    _check(x, {"w1": w1, "b1": b1, "w2": w2, "b2": b2})
    if method not in get_args(Method):
        raise UsageError(f"weighted_block: method is {method!r}; expected one of {', '.join(get_args(Method))}")
    if method == "native":
        _require_kernel(x)
    else:
        trains = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, w1, b1, w2, b2))
        if method == "reference" or twin_is_better(x, trains=trains):
            return reference.weighted_block(x, w1, b1, w2, b2)
    if not w1.dtype == b1.dtype == w2.dtype == b2.dtype or w1.dtype not in _launch.FLOAT_TYPES:
        w1, b1, w2, b2 = w1.float(), b1.float(), w2.float(), b2.float()
    out: Tensor = torch.ops.etnet.weighted_block(x, w1, b1, w2, b2)[0]
    return out


def _check(x: Tensor, parameters: dict[str, Tensor]) -> None:
    if x.ndim != 4 or x.shape[1] < 1 or not x.is_floating_point():
        raise UsageError(
            f"weighted_block: x is {x.dtype} of shape {list(x.shape)}; expected floating point [N, C, H, W] with at "
            "least one channel"
        )
    channels, hidden = x.shape[1], parameters["b1"].shape[0] if parameters["b1"].ndim == 1 else 0
    shapes = {"w1": (hidden, channels), "b1": (hidden,), "w2": (channels, hidden), "b2": (channels,)}
    for name, parameter in parameters.items():
        if parameter.shape != shapes[name] or hidden < 1 or not parameter.is_floating_point():
            raise UsageError(
                f"weighted_block: {name} is {parameter.dtype} of shape {list(parameter.shape)}; expected floating "
                f"point w1 [R, {channels}], b1 [R], w2 [{channels}, R], b2 [{channels}] for x of shape {list(x.shape)}"
            )
        if parameter.device != x.device:
            raise UsageError(f"weighted_block: {name} is on {parameter.device}, x on {x.device}; move one of them")


def twin_is_better(x: Tensor, *, trains: bool) -> bool:
    """Whether `method="auto"` computes the map `x` in plain torch.

    Args:
        x: Map [N, C, H, W].
        trains: Whether a gradient is wanted.

    Returns:
        True where there is no kernel for its type and device, where the plain formula was measured to be faster, and
        on CUDA.
    """
    if x.is_cpu and x.dtype == torch.float32:  # first, because there microseconds count
        return x.numel() < PLAIN_BELOW["training" if trains else "inference"]
    # `auto` does not choose the CUDA kernel before a GPU has run it.
    return x.dtype not in _launch.FLOAT_TYPES or not x.is_cpu


def _require_kernel(x: Tensor) -> None:
    device = x.device.type
    if x.dtype not in _launch.FLOAT_TYPES or not _kernel_is_there(device):
        raise EnvironmentFault(
            f"weighted_block: method 'native' has no kernel for {x.dtype} on {device}; use method 'auto'"
        )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _kernel_is_there(device: str) -> bool:
    native.require()
    return device == "cpu" or (device == "cuda" and native.has_cuda())


def _has_kernel(device: str) -> bool:
    return native.has_cuda() if device == "cuda" else native.module() is not None


def _run(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> tuple[Tensor, Tensor]:
    if x.numel() == 0:
        return _launch.map_like(x), _launch.weighted_block_state_like(x, w1).zero_()
    if _has_kernel(x.device.type):
        return _launch.weighted_block(x, w1, b1, w2, b2)
    return reference.weighted_block_with_state(x, w1, b1, w2, b2)


def _shapes(x: Tensor, w1: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return _launch.map_like(x), _launch.weighted_block_state_like(x, w1)


def _run_backward(gradient: Tensor, x: Tensor, state: Tensor, w1: Tensor, w2: Tensor) -> _Gradients:
    if x.numel() == 0:
        gx, gw1, gb1, gw2, gb2 = (tensor.zero_() for tensor in _launch.weighted_block_gradients_like(x, w1, w2))
        return gx, gw1, gb1, gw2, gb2
    if _has_kernel(x.device.type):
        return _launch.weighted_block_backward(gradient, x, state, w1, w2)
    return reference.weighted_block_backward(gradient, x, state, w1, w2)


def _backward_shapes(_: Tensor, x: Tensor, __: Tensor, w1: Tensor, w2: Tensor) -> _Gradients:
    return _launch.weighted_block_gradients_like(x, w1, w2)


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # no zeros in place of the gradient that the second output never gets
    ctx.save_for_backward(*inputs, output[1])


def _backward(ctx: Any, gradient: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return None, None, None, None, None
    *inputs, state = ctx.saved_tensors
    # Grad mode is on here only under create_graph=True: the twin's gradients can be differentiated again.
    if torch.is_grad_enabled():
        return _twice_differentiable(inputs, gradient)
    x, w1, _, w2, _ = inputs
    gradients = torch.ops.etnet.weighted_block_backward(gradient, x, state, w1, w2)
    return tuple(value.to(given.dtype) for value, given in zip(gradients, inputs, strict=True))


def _twice_differentiable(inputs: list[Tensor], gradient: Tensor) -> tuple[Tensor | None, ...]:
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(reference.weighted_block(*inputs), wanted, gradient, create_graph=True))
    return tuple(next(found) if tensor.requires_grad else None for tensor in inputs)


for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("weighted_block", _run, _device)
    _LIBRARY.impl("weighted_block_backward", _run_backward, _device)
torch.library.register_fake("etnet::weighted_block", _shapes, lib=_LIBRARY)
torch.library.register_fake("etnet::weighted_block_backward", _backward_shapes, lib=_LIBRARY)
torch.library.register_autograd("etnet::weighted_block", _backward, setup_context=_save_inputs, lib=_LIBRARY)
