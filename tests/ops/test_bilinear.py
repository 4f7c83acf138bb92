from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from etnet.models.baselines.polar import from_polar
from etnet.models.blocks import upsample
from etnet.ops.bilinear import needs_fixed_order, sample_in_fixed_order, upsample_in_fixed_order


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3), (5, 4)])
@pytest.mark.parametrize("scale", [2, 3, 4, 8, 16])
def test_enlarging_and_its_gradient_are_those_of_interpolate(
    scale: int, height: int, width: int, memory_format: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
    features = features.to(memory_format=memory_format).requires_grad_()
    weights = torch.randn(2, 3, height * scale, width * scale, generator=generator, dtype=torch.float64)
    ours = upsample_in_fixed_order(features, scale)
    theirs = functional.interpolate(features, scale_factor=float(scale), mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours, theirs)
    (our_gradient,) = torch.autograd.grad((ours * weights).sum(), features)
    (their_gradient,) = torch.autograd.grad((theirs * weights).sum(), features)
    torch.testing.assert_close(our_gradient, their_gradient)


def test_the_gradient_of_enlarging_agrees_with_finite_differences() -> None:
    features = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: upsample_in_fixed_order(values, 4), (features,))


def test_half_precision_is_summed_in_float32() -> None:
    features = torch.ones(1, 1, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    gradient = torch.full((1, 1, 64, 64), 1.01, dtype=torch.bfloat16)
    upsample_in_fixed_order(features, 16).backward(gradient)
    assert features.grad is not None
    # Every weight sums to 16 * 16 in the middle; only the result is rounded.
    assert features.grad[0, 0, 1, 1] == (gradient[0, 0, 0, 0].float() * 256).to(torch.bfloat16)
    assert features.grad.dtype == torch.bfloat16


def test_sampling_and_its_gradient_are_those_of_grid_sample() -> None:
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(2, 3, 6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    x, y = 2.4 * torch.rand(2, 7, 8, generator=generator, dtype=torch.float64) - 1.2
    weights = torch.randn(2, 3, 7, 8, generator=generator, dtype=torch.float64)
    ours = sample_in_fixed_order(maps, x, y)
    grid = torch.stack((x, y), dim=2).expand(2, -1, -1, -1)
    theirs = functional.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(ours, theirs)
    (our_gradient,) = torch.autograd.grad((ours * weights).sum(), maps)
    (their_gradient,) = torch.autograd.grad((theirs * weights).sum(), maps)
    torch.testing.assert_close(our_gradient, their_gradient)


def test_a_cpu_keeps_the_gradients_of_torch(deterministic: None) -> None:
    features = torch.ones(1, 1, 2, 2, requires_grad=True)
    assert not needs_fixed_order(features)
    assert "UpsampleBilinear2D" in type(upsample(features, 2).grad_fn).__name__


def test_other_devices_get_ours_when_asked(deterministic: None) -> None:
    features = torch.ones(1, 1, 2, 2, device="meta", requires_grad=True)
    assert type(upsample(features, 2).grad_fn).__name__ == "_UpsampleBackward"
    maps = torch.ones(1, 1, 4, 4, device="meta", requires_grad=True)
    names, waiting = set(), [from_polar(maps).grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None:
            names.add(type(node).__name__)
            waiting += [following for following, _ in node.next_functions]
    assert "IndexSelectBackward0" in names
    assert not any("Grid" in name for name in names)


@pytest.mark.gpu
@pytest.mark.parametrize("scale", [2, 4])
def test_on_a_gpu_the_gradient_repeats_and_is_that_of_the_cpu(deterministic: None, scale: int) -> None:
    features = torch.randn(4, 32, 64, 64)
    weights = torch.randn(4, 32, 64 * scale, 64 * scale)

    def gradient(device: str) -> torch.Tensor:
        leaf = features.to(device).requires_grad_()
        (upsample(leaf, scale) * weights.to(device)).sum().backward()
        assert leaf.grad is not None
        return leaf.grad.cpu()

    first = gradient("cuda")
    assert all(torch.equal(first, gradient("cuda")) for _ in range(5))
    torch.testing.assert_close(first, gradient("cpu"), rtol=1e-5, atol=1e-5)
