"""Lovasz-Softmax (paper eq. 1; Berman et al. 2018) as a torch operator that returns the loss and its gradient.

`torch.ops.etnet.lovasz_softmax` works under torch.compile, torch.export and autocast. What runs behind it:

    CPU   the native kernel; the twin of etnet.ops.reference where the native module is missing (with one warning)
    CUDA  the native kernel where the module was built with CUDA, else the twin

On CUDA the method `auto` does not come here: until the kernels have been measured it is `etnet.ops.lovasz_static`.

Two methods. `sort` is the exact loss. `histogram` rounds each error m_i to the nearest m'_i of `bins` numbers
i / (bins - 1), so that counting replaces sorting; its loss and gradient are exact for the rounded errors.

The two losses of a class differ by at most d = 1 / (2 (bins - 1)). Proof: the loss is the Lovasz extension of the
Jaccard loss J of a set of wrong pixels, L(m) = integral over t in 0..1 of J({i: m_i > t}), where J grows with the set
and lies in 0..1. So L grows with every m_i, and adding d to all of them shifts the sets by d in t, which adds at most
d: L(m + d) <= L(m) + d. Rounding moves no error by more than d, hence L(m') <= L(m + d) <= L(m) + d, and likewise
L(m) <= L(m' + d) <= L(m') + d. The mean over classes and segments keeps the bound. (Float32 rounding of the errors,
about 1e-7, comes on top for both methods.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from etnet import native
from etnet.errors import EnvironmentFault, UsageError
from etnet.ops import _launch, lovasz_static, reference

if TYPE_CHECKING:
    from collections.abc import Sequence

_LIBRARY = torch.library.Library("etnet", "FRAGMENT")
_LIBRARY.define(
    "lovasz_softmax(Tensor logits, Tensor target, str mode, int[] listed, bool per_image, int? ignore_index, "
    "str method, int bins, bool need_gradient) -> (Tensor loss, Tensor state)"
)
_LIBRARY.define(
    "lovasz_softmax_look_up(Tensor logits, Tensor target, Tensor weights, Tensor scale, bool per_image, "
    "int? ignore_index) -> Tensor gradient"
)

Method = Literal["auto", "sort", "histogram", "reference"]
"""How the loss is computed, see `lovasz_softmax`."""

DEFAULT_BINS = 4096
MAXIMAL_BINS = 65536


def lovasz_softmax(
    logits: Tensor,
    target: Tensor,
    *,
    classes: Literal["present", "all"] | Sequence[int] = "present",
    per_image: bool = False,
    ignore_index: int | None = None,
    method: Method = "auto",
    bins: int = DEFAULT_BINS,
) -> Tensor:
    """Lovasz-Softmax loss of class scores; softmax is part of the operator (paper eq. 1).

    A segment is one image (`per_image`) or the whole batch. The loss is the mean over segments of the mean over
    classes. Segments without a pixel that counts are left out; if none is left (also for an empty batch) the loss is 0
    with a zero gradient. A NaN or +inf among the counted logits gives a NaN loss. Equal errors keep their memory order.

    Args:
        logits: Class scores [N, C, H, W], any floating point type; computed in float32, also under autocast.
        target: Class indices [N, H, W], any integer type, on the device of the logits.
        classes: `"present"` averages over the classes that occur in a segment, `"all"` over all of them, a list over
            the classes in it whether they occur or not.
        per_image: Whether each image is a segment of its own; otherwise the whole batch is one.
        ignore_index: Target value of pixels that are left out.
        method: `"sort"` is the exact loss by the native kernel; `"histogram"` rounds the errors to bins, is faster and
            at most 1 / (2 (bins - 1)) off; `"reference"` is the exact loss in plain torch (which also keeps float64
            and can be differentiated twice); `"auto"` is the exact loss by the fastest code that never waits for a GPU.
        bins: Number of bins for `"histogram"`, 2..65536.

    Returns:
        The loss, a float32 scalar in 0..1 (float64 for float64 logits with `"reference"`).

    Raises:
        DataError: A target is neither a class index nor `ignore_index` (on CUDA, where nothing waits: a NaN loss).
        UsageError: Shapes, types or options do not fit.
        EnvironmentFault: `"sort"` or `"histogram"` was asked for where no native kernel exists.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, -1.0], [-2.0, 1.0]]).view(1, 2, 1, 2)
        >>> float(lovasz_softmax(logits, torch.tensor([[[0, 1]]]))) < 0.13
        True
    """
    _check(logits, target, classes, method, bins)
    if method == "reference" or (method == "auto" and logits.is_cuda):
        plain = reference.lovasz_softmax if method == "reference" else lovasz_static.lovasz_softmax
        return plain(logits, target, classes=classes, per_image=per_image, ignore_index=ignore_index)
    _require_kernel(logits, method)
    loss: Tensor = torch.ops.etnet.lovasz_softmax(
        logits if logits.dtype in _launch.FLOAT_TYPES else logits.float(),
        target if target.dtype in _launch.TARGET_TYPES else target.long(),
        classes if isinstance(classes, str) else "listed",
        [] if isinstance(classes, str) else list(classes),
        per_image,
        ignore_index,
        "histogram" if method == "histogram" else "sort",
        bins,
        logits.requires_grad and torch.is_grad_enabled(),
    )[0]
    return loss


def _check(logits: Tensor, target: Tensor, classes: str | Sequence[int], method: str, bins: int) -> None:
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
    check_method(method, bins)


def check_method(method: str, bins: int) -> None:
    """Checks the options `method` and `bins`.

    Raises:
        UsageError: The method is unknown, or the number of bins is outside 2..65536.
    """
    if method not in get_args(Method):
        raise UsageError(f"lovasz_softmax: method is {method!r}; expected one of {', '.join(get_args(Method))}")
    if not 2 <= bins <= MAXIMAL_BINS:
        raise UsageError(f"lovasz_softmax: bins is {bins}; expected a number in 2..{MAXIMAL_BINS}")


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


def _require_kernel(logits: Tensor, method: str) -> None:
    device = logits.device.type
    if method != "auto" and not _kernel_is_there(device):
        reason = ": the native module was built without nvcc" if device == "cuda" else ""
        raise EnvironmentFault(
            f"lovasz_softmax: method {method!r} has no kernel for {device} tensors{reason}; use method 'auto'"
        )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _kernel_is_there(device: str) -> bool:
    native.require()
    return device == "cpu" or (device == "cuda" and native.has_cuda())


def _has_kernel(device: str) -> bool:
    """The same, without insisting: the twin runs where there is none."""
    if device == "cuda":
        return native.has_cuda()
    return device == "cpu" and native.module() is not None


def _has_tables(logits: Tensor, options: _launch.LovaszOptions) -> bool:
    """Whether the state is the histogram's weights; otherwise it is the gradient (sort, and the twin)."""
    return options.method == "histogram" and _has_kernel(logits.device.type)


def _run(logits: Tensor, target: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    options = _launch.LovaszOptions(*arguments)
    if _has_kernel(logits.device.type):
        return _launch.lovasz_softmax(logits, target, options)
    scores = logits.float()
    keywords: dict[str, Any] = {
        "classes": options.listed if options.mode == "listed" else options.mode,
        "per_image": options.per_image,
        "ignore_index": options.ignore_index,
        "bins": options.bins if options.method == "histogram" else None,
    }
    if not options.need_gradient:
        return reference.lovasz_softmax(scores, target, **keywords), _launch.state_like(logits, options)
    loss, gradient = reference.lovasz_softmax_with_gradient(scores, target, **keywords)
    return loss, _launch.gradient_like(logits).copy_(gradient)


def _shapes(logits: Tensor, _: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    options = _launch.LovaszOptions(*arguments)
    twin = options.need_gradient and not _has_tables(logits, options)
    state = _launch.gradient_like(logits) if twin else _launch.state_like(logits, options)
    return state.new_empty(()), state


def _look_up(
    logits: Tensor, target: Tensor, weights: Tensor, scale: Tensor, per_image: bool, ignore_index: int | None
) -> Tensor:
    options = _launch.LovaszOptions("present", (), per_image, ignore_index, "histogram", weights.shape[-1], True)
    return _launch.lovasz_softmax_look_up(logits, target, weights, scale, options)


def _look_up_shape(logits: Tensor, *_: Any) -> Tensor:
    return _launch.gradient_like(logits)


def _save_state(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, target, *arguments = inputs
    options = _launch.LovaszOptions(*arguments)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # no zeros in place of the gradient that the second output never gets
    ctx.has_tables = _has_tables(logits, options)
    ctx.options = (options.per_image, options.ignore_index)
    ctx.logits_type = logits.dtype
    ctx.save_for_backward(output[1], *((logits, target) if ctx.has_tables else ()))


def _backward(ctx: Any, loss_gradient: Tensor, _: None) -> tuple[Tensor | None, ...]:
    # Grad mode is on here only under create_graph=True; the saved state would then count as a constant, silently.
    if torch.is_grad_enabled():
        raise UsageError("lovasz_softmax: create_graph=True differentiates twice, which needs method='reference'")
    state, *inputs = ctx.saved_tensors
    # Scaled before it is rounded: unscaled, gradients of this size vanish in float16.
    if ctx.has_tables:
        gradient = torch.ops.etnet.lovasz_softmax_look_up(*inputs, state, loss_gradient, *ctx.options)
    else:
        gradient = state * loss_gradient
    return gradient.to(ctx.logits_type), None, None, None, None, None, None, None, None


for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("lovasz_softmax", _run, _device)
    _LIBRARY.impl("lovasz_softmax_look_up", _look_up, _device)
torch.library.register_fake("etnet::lovasz_softmax", _shapes, lib=_LIBRARY)
torch.library.register_fake("etnet::lovasz_softmax_look_up", _look_up_shape, lib=_LIBRARY)
torch.library.register_autograd("etnet::lovasz_softmax", _backward, setup_context=_save_state, lib=_LIBRARY)
