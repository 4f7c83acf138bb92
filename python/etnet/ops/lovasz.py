"""Lovasz-Softmax (paper eq. 1; Berman et al. 2018) as a torch operator that returns the loss and its gradient.

`torch.ops.etnet.lovasz_softmax` works under torch.compile, torch.export and autocast. What runs behind it:

    CPU   the native kernel; the twin of etnet.ops.reference where the native module is missing (with one warning)
    CUDA  the twin; a native CUDA kernel does not exist yet
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from etnet import native
from etnet.errors import EnvironmentFault, UsageError
from etnet.ops import _launch, reference

if TYPE_CHECKING:
    from collections.abc import Sequence

_LIBRARY = torch.library.Library("etnet", "FRAGMENT")
_LIBRARY.define(
    "lovasz_softmax(Tensor logits, Tensor target, str mode, int[] listed, bool per_image, int? ignore_index, "
    "bool need_gradient) -> (Tensor loss, Tensor gradient)"
)


def lovasz_softmax(
    logits: Tensor,
    target: Tensor,
    *,
    classes: Literal["present", "all"] | Sequence[int] = "present",
    per_image: bool = False,
    ignore_index: int | None = None,
    method: Literal["auto", "sort", "reference"] = "auto",
) -> Tensor:
    """Lovasz-Softmax loss of class scores; softmax is part of the operator (paper eq. 1).

    A segment is one image (`per_image`) or the whole batch. The loss is the mean over segments of the mean over
    classes. Segments without a pixel that counts are left out; if none is left (also for an empty batch) the loss is 0
    with a zero gradient. A NaN or +inf among the counted logits gives a NaN loss. Equal errors keep their memory order.

    Args:
        logits: Class scores [N, C, H, W], any floating point type; computed in float32, also under autocast.
        target: Class indices [N, H, W], uint8 or any integer type, on the device of the logits.
        classes: `"present"` averages over the classes that occur in a segment, `"all"` over all of them, a list over
            the classes in it whether they occur or not.
        per_image: Whether each image is a segment of its own; otherwise the whole batch is one.
        ignore_index: Target value of pixels that are left out.
        method: `"sort"` demands the native kernel, `"reference"` the plain torch twin (which also keeps float64 and can
            be differentiated twice), `"auto"` takes the fastest that there is.

    Returns:
        The loss, a float32 scalar in 0..1 (float64 for float64 logits with `"reference"`).

    Raises:
        DataError: A target is neither a class index nor `ignore_index`.
        UsageError: Shapes, types or options do not fit.
        EnvironmentFault: `"sort"` was asked for where no native kernel exists.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, -1.0], [-2.0, 1.0]]).view(1, 2, 1, 2)
        >>> float(lovasz_softmax(logits, torch.tensor([[[0, 1]]]))) < 0.13
        True
    """
    _check(logits, target, classes, method)
    if method == "reference":
        return reference.lovasz_softmax(logits, target, classes=classes, per_image=per_image, ignore_index=ignore_index)
    if method == "sort":
        _require_kernel(logits)
    loss: Tensor = torch.ops.etnet.lovasz_softmax(
        logits.float(),
        target if target.dtype == torch.uint8 else target.long(),
        classes if isinstance(classes, str) else "listed",
        [] if isinstance(classes, str) else list(classes),
        per_image,
        ignore_index,
        logits.requires_grad and torch.is_grad_enabled(),
    )[0]
    return loss


def _check(logits: Tensor, target: Tensor, classes: str | Sequence[int], method: str) -> None:
    if logits.ndim != 4 or logits.shape[1] < 1 or not logits.is_floating_point():
        raise UsageError(
            f"lovasz_softmax: logits are {logits.dtype} of shape {list(logits.shape)}; expected floating point "
            "[N, C, H, W] with at least one class"
        )
    expected = [logits.shape[0], logits.shape[2], logits.shape[3]]
    if list(target.shape) != expected or target.is_floating_point() or target.dtype == torch.bool:
        raise UsageError(
            f"lovasz_softmax: target is {target.dtype} of shape {list(target.shape)}; expected integer class indices "
            f"of shape {expected} for logits of shape {list(logits.shape)}"
        )
    if target.device != logits.device:
        raise UsageError(f"lovasz_softmax: target is on {target.device}, logits on {logits.device}; move one of them")
    check_classes(classes, num_classes=logits.shape[1])
    if method not in ("auto", "sort", "reference"):
        raise UsageError(f"lovasz_softmax: method is {method!r}; expected 'auto', 'sort' or 'reference'")


def check_classes(classes: str | Sequence[int], *, num_classes: int | None = None) -> None:
    """Checks an option `classes`.

    Raises:
        UsageError: It is neither `"present"`, `"all"` nor a list of distinct class indices.
    """
    if isinstance(classes, str):
        if classes not in ("present", "all"):
            raise UsageError(f"lovasz_softmax: classes is {classes!r}; expected 'present', 'all' or a list of indices")
        return
    limit = "" if num_classes is None else f" below {num_classes}"
    outside = any(c < 0 or (num_classes is not None and c >= num_classes) for c in classes)
    if outside or len(classes) == 0 or len(set(classes)) != len(classes):
        raise UsageError(f"lovasz_softmax: classes is {list(classes)}; expected at least one index{limit}, none twice")


def _require_kernel(logits: Tensor) -> None:
    if logits.device.type != "cpu":
        raise EnvironmentFault(
            f"lovasz_softmax: method 'sort' has no kernel for {logits.device.type} tensors; use method 'auto'"
        )
    _native_is_loaded()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _native_is_loaded() -> bool:
    native.require()
    return True


def _run_cpu(
    logits: Tensor,
    target: Tensor,
    mode: str,
    listed: list[int],
    per_image: bool,
    ignore_index: int | None,
    need_gradient: bool,
) -> tuple[Tensor, Tensor]:
    if native.module() is None:
        return _run_twin(logits, target, mode, listed, per_image, ignore_index, need_gradient)
    return _launch.lovasz_softmax(
        logits,
        target,
        mode=mode,
        listed=listed,
        per_image=per_image,
        ignore_index=ignore_index,
        need_gradient=need_gradient,
    )


def _run_twin(
    logits: Tensor,
    target: Tensor,
    mode: str,
    listed: list[int],
    per_image: bool,
    ignore_index: int | None,
    need_gradient: bool,
) -> tuple[Tensor, Tensor]:
    options: dict[str, Any] = {
        "classes": listed if mode == "listed" else mode,
        "per_image": per_image,
        "ignore_index": ignore_index,
    }
    if not need_gradient:
        return reference.lovasz_softmax(logits, target, **options), logits.new_empty(0)
    return reference.lovasz_softmax_with_gradient(logits, target, **options)


def _shapes(logits: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    need_gradient = options[-1]
    return logits.new_empty(()), logits.new_empty(logits.shape if need_gradient else (0,))


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ARG001
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, loss_gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    # Grad mode is on here only under create_graph=True; the saved gradient would then count as a constant, silently.
    if torch.is_grad_enabled():
        raise UsageError("lovasz_softmax: create_graph=True differentiates twice, which needs method='reference'")
    (gradient,) = ctx.saved_tensors
    return gradient * loss_gradient, None, None, None, None, None, None


_LIBRARY.impl("lovasz_softmax", _run_cpu, "CPU")
_LIBRARY.impl("lovasz_softmax", _run_twin, "CUDA")
torch.library.register_fake("etnet::lovasz_softmax", _shapes, lib=_LIBRARY)
torch.library.register_autograd("etnet::lovasz_softmax", _backward, setup_context=_save_gradient, lib=_LIBRARY)
