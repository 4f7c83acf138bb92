"""Cases of the weighted block, and its comparison with the float64 twin."""

from __future__ import annotations

import torch

from etnet.ops import reference
from etnet.ops.weighted_block import weighted_block
from helpers.ops import Case

FORMATS = [torch.contiguous_format, torch.channels_last]
TYPES = [torch.float32, torch.float16, torch.bfloat16]


def random_case(name: str, shape: tuple[int, ...], *, hidden: int = 3, shift: float = 0.5) -> Case:
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    channels = shape[1]
    x = torch.randn(shape, generator=generator) + shift
    w1 = torch.randn(hidden, channels, generator=generator) / channels**0.5
    b1 = torch.randn(hidden, generator=generator)
    w2 = torch.randn(channels, hidden, generator=generator)
    b2 = torch.randn(channels, generator=generator)
    return Case(name, (x, w1, b1, w2, b2))


CASES = [
    random_case("small", (2, 8, 6, 5)),
    random_case("odd_sizes", (3, 7, 5, 9), hidden=5),
    random_case("one_pixel", (2, 5, 1, 1)),
    random_case("one_channel", (1, 1, 4, 4), hidden=1),
    random_case("one_hidden_unit", (2, 6, 3, 4), hidden=1),
    random_case("more_hidden_units_than_channels", (2, 4, 3, 3), hidden=40),
    random_case("more_than_one_run", (1, 2, 43, 53)),
    random_case("vectors_and_a_rest", (2, 36, 5, 7)),
]


def every_gradient(function, inputs, out_gradient):
    leaves = [tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_() for tensor in inputs]
    out = function(*leaves)
    return out.detach(), torch.autograd.grad(out, leaves, out_gradient)


def run_native(*inputs):
    return weighted_block(*inputs, method="native")


def check_against_the_twin(inputs, out_gradient):
    """Value and all five gradients, with the tolerance of the type of the map."""
    x = inputs[0]
    out, gradients = every_gradient(run_native, inputs, out_gradient)
    wide = [tensor.double().cpu() for tensor in inputs]
    expected, wide_gradients = every_gradient(reference.weighted_block, wide, out_gradient.double().cpu())
    rounding = 0.0 if x.dtype == torch.float32 else torch.finfo(x.dtype).eps / 2
    torch.testing.assert_close(out.double().cpu(), expected, atol=4e-6, rtol=4e-6 + rounding)
    torch.testing.assert_close(gradients[0].double().cpu(), wide_gradients[0], atol=4e-6, rtol=4e-6 + rounding)
    for gradient, wide_gradient in zip(gradients[1:], wide_gradients[1:], strict=True):
        scale = wide_gradient.abs().max().item()
        torch.testing.assert_close(gradient.double().cpu(), wide_gradient, atol=1e-5 * scale + 1e-7, rtol=1e-5)
    assert out.dtype == gradients[0].dtype == x.dtype
    return out, gradients
