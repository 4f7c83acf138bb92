"""Values and gradients of the weighted block against its twin, NumPy and cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from etnet.ops import reference
from etnet.ops.weighted_block import weighted_block
from helpers.ops import VALUE_TOLERANCE, OpTester, spread_out
from helpers.weighted_block import (
    CASES,
    FORMATS,
    TYPES,
    check_against_the_twin,
    every_gradient,
    random_case,
    run_native,
)


class TestNative(OpTester):
    cases = CASES
    operator = torch.ops.etnet.weighted_block.default

    def run(self, *inputs):
        return run_native(*inputs)

    def twin(self, *inputs):
        return reference.weighted_block(*inputs)

    def operator_arguments(self, case):
        return case.inputs

    def test_memory_layout_changes_nothing(self, case):
        # A channels-last map is summed in another order; anything else is copied and gives the same bits.
        x, *parameters = case.inputs
        expected = run_native(*case.inputs)
        assert torch.equal(run_native(spread_out(x), *parameters), expected)
        last = run_native(x.contiguous(memory_format=torch.channels_last), *parameters)
        torch.testing.assert_close(last, expected, atol=VALUE_TOLERANCE[torch.float32], rtol=0)

    def test_half_precision_input_is_computed_in_float32(self, smooth_case):
        for dtype in (torch.bfloat16, torch.float16):
            x, *parameters = smooth_case.inputs
            half = x.to(dtype)
            expected = run_native(half.float(), *parameters)
            assert torch.equal(run_native(half, *parameters), expected.to(dtype))


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_gradients_match_the_float64_twin(case, dtype, memory_format):
    x, *parameters = case.inputs
    generator = torch.Generator().manual_seed(1)
    out_gradient = torch.randn(x.shape, generator=generator).to(dtype)
    given_map = x.to(dtype).contiguous(memory_format=memory_format)
    out, gradients = check_against_the_twin((given_map, *parameters), out_gradient)
    assert out.is_contiguous(memory_format=memory_format)
    assert gradients[0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("method", ["native", "reference"])
def test_hand_computed_example(method):
    # Means 2 and 1; hidden relu(2 - 1 + 1) = 2 and relu(-3) = 0; scales sigmoid(2 - 2) = 1/2 and sigmoid(log 3) = 3/4.
    x = torch.tensor([[1.0, 3.0], [1.0, 1.0]]).view(1, 2, 1, 2)
    w1, b1 = torch.tensor([[1.0, -1.0], [0.0, 0.0]]), torch.tensor([1.0, -3.0])
    w2, b2 = torch.tensor([[1.0, 5.0], [0.0, 5.0]]), torch.tensor([-2.0, float(np.log(3))])
    out = weighted_block(x, w1, b1, w2, b2, method=method)
    torch.testing.assert_close(out, torch.tensor([[0.5, 1.5], [0.75, 0.75]]).view(1, 2, 1, 2))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20)),
    hidden=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(TYPES),
    memory_format=st.sampled_from(FORMATS),
)
def test_any_shape_matches_numpy(shape, hidden, seed, dtype, memory_format):
    generator = np.random.default_rng(seed)
    channels = shape[1]
    x = torch.from_numpy(generator.standard_normal(shape, dtype=np.float32)).to(dtype)
    w1, b1, w2, b2 = (
        generator.standard_normal(size) for size in ((hidden, channels), (hidden,), (channels, hidden), (channels,))
    )
    numbers = x.double().numpy()
    inner = np.maximum(numbers.mean(axis=(2, 3)) @ w1.T + b1, 0)
    expected = numbers * expit(inner @ w2.T + b2)[:, :, None, None]
    parameters = [torch.from_numpy(parameter).float() for parameter in (w1, b1, w2, b2)]
    out = run_native(x.contiguous(memory_format=memory_format), *parameters)
    rounding = 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps / 2
    np.testing.assert_allclose(out.double().numpy(), expected, rtol=1e-5 + rounding, atol=1e-5)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("images", [1, 3])
def test_large_maps_do_not_depend_on_the_number_of_threads(images, memory_format, torch_threads):
    case = random_case("large", (images, 48, 100, 131), hidden=8)
    x, *parameters = case.inputs
    inputs = (x.contiguous(memory_format=memory_format), *parameters)
    out_gradient = torch.ones_like(x)
    results = []
    for threads in (1, 2, 3, 7):
        torch_threads(threads)
        out, gradients = every_gradient(run_native, inputs, out_gradient)
        results.append((out, *gradients))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_spreads_as_in_the_twin(bad, dtype, memory_format):
    case = random_case("not_finite", (3, 9, 5, 7))
    x, *parameters = case.inputs
    x = x.to(dtype).contiguous(memory_format=memory_format)
    x[1, 4, 2, 3] = bad
    out_gradient = torch.ones_like(x)
    ours, our_gradients = every_gradient(run_native, (x, *parameters), out_gradient)
    twins, twin_gradients = every_gradient(reference.weighted_block, (x, *parameters), out_gradient)
    assert torch.isfinite(ours[[0, 2]]).all()
    for our, twin in zip((ours, *our_gradients), (twins, *twin_gradients), strict=True):
        assert torch.equal(our.isnan(), twin.isnan())
        torch.testing.assert_close(our, twin, equal_nan=True, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("size", [1e-40, 1e-20, 1e15, 1e30])
def test_extreme_numbers_saturate_the_scale_as_in_the_twin(size, memory_format):
    x, *parameters = random_case("extreme", (2, 6, 5, 7)).inputs
    inputs = ((x * size).contiguous(memory_format=memory_format), *parameters)
    expected = reference.weighted_block(*(tensor.double() for tensor in inputs))
    torch.testing.assert_close(run_native(*inputs).double(), expected, atol=1e-44, rtol=1e-5)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("threshold", ["below", "at"])
@pytest.mark.parametrize("hidden", [1, 3])
def test_dead_hidden_units_get_gradients_of_exactly_zero(hidden, threshold, dtype, memory_format):
    x, w1, b1, w2, b2 = random_case("dead", (2, 5, 3, 7), hidden=hidden).inputs
    x = x.to(dtype).contiguous(memory_format=memory_format)
    # The relu's input is -100 or so, or exactly 0, where torch takes the slope 0 too.
    w1, b1 = (w1, torch.full_like(b1, -100)) if threshold == "below" else (torch.zeros_like(w1), torch.zeros_like(b1))
    out_gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    out, (gradient_x, gradient_w1, gradient_b1, gradient_w2, gradient_b2) = every_gradient(
        run_native, (x, w1, b1, w2, b2), out_gradient
    )
    scale = torch.sigmoid(b2.double())[:, None, None]
    rounding = 4e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), x * scale, rtol=rounding, atol=1e-6)
    torch.testing.assert_close(gradient_x.double(), out_gradient * scale, rtol=rounding, atol=1e-6)
    for gradient in (gradient_w1, gradient_b1, gradient_w2):
        assert torch.equal(gradient, torch.zeros_like(gradient))
    outer = (out_gradient.double() * x.double()).sum(dim=(0, 2, 3)) * (scale * (1 - scale)).flatten()
    torch.testing.assert_close(gradient_b2.double(), outer, rtol=1e-5, atol=1e-5)


def test_a_dead_hidden_unit_takes_nothing_from_the_living_ones():
    x, w1, b1, w2, b2 = random_case("dead", (2, 4, 3, 3)).inputs
    b1[1] = -100
    _, gradients = every_gradient(run_native, (x, w1, b1, w2, b2), torch.ones_like(x))
    alive = [0, 2]
    _, expected = every_gradient(run_native, (x, w1[alive], b1[alive], w2[:, alive], b2), torch.ones_like(x))
    living = (gradients[0], gradients[1][alive], gradients[2][alive], gradients[3][:, alive], gradients[4])
    torch.testing.assert_close(living, tuple(expected), rtol=1e-6, atol=1e-7)
    assert torch.count_nonzero(expected[1]) > 0


def test_every_half_number_is_read_and_rounded_as_torch_does():
    for dtype in (torch.float16, torch.bfloat16):
        every = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(dtype)
        x = every[every.isfinite()].view(-1, 1, 1, 1)
        # One pixel and one channel each: the scale sigmoid(0.3 + 0 mean) is the same for all.
        parameters = (torch.zeros(1, 1), torch.zeros(1), torch.zeros(1, 1), torch.tensor([0.3]))
        scale = run_native(torch.ones(1, 1, 1, 1), *parameters)
        assert torch.equal(run_native(x, *parameters), (x.float() * scale).to(dtype))


@pytest.mark.parametrize("shape", [(0, 4, 5, 5), (2, 4, 0, 5), (2, 4, 5, 0)])
def test_empty_maps_stay_empty_and_give_zero_gradients(shape):
    _, *parameters = random_case("empty", (1, 4, 2, 2)).inputs
    out, gradients = every_gradient(run_native, (torch.zeros(shape), *parameters), torch.zeros(shape))
    assert out.shape == gradients[0].shape == shape
    assert all(torch.count_nonzero(gradient) == 0 for gradient in gradients)


@pytest.mark.parametrize("parameter_type", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_parameters_of_any_type_get_gradients_of_it(parameter_type):
    x, *parameters = random_case("parameters", (2, 6, 3, 4)).inputs
    parameters = [parameter.to(parameter_type) for parameter in parameters]
    rounded = [parameter.float() for parameter in parameters]
    out, gradients = every_gradient(run_native, (x, *parameters), torch.ones_like(x))
    expected, expected_gradients = every_gradient(run_native, (x, *rounded), torch.ones_like(x))
    assert torch.equal(out, expected)
    for gradient, expected_gradient in zip(gradients[1:], expected_gradients[1:], strict=True):
        assert torch.equal(gradient, expected_gradient.to(parameter_type))


@pytest.mark.gpu
class TestCuda:
    @pytest.mark.parametrize("memory_format", FORMATS, ids=str)
    @pytest.mark.parametrize("dtype", TYPES, ids=str)
    @pytest.mark.parametrize("case", [*CASES, random_case("pieces", (2, 264, 130, 67), hidden=16)], ids=str)
    def test_value_and_gradients_match_the_float64_twin(self, case, dtype, memory_format):
        x, *parameters = (tensor.cuda() for tensor in case.inputs)
        x = x.to(dtype).contiguous(memory_format=memory_format)
        out, gradients = check_against_the_twin((x, *parameters), torch.full_like(x, 0.5))
        assert out.is_contiguous(memory_format=memory_format)
        assert gradients[0].is_contiguous(memory_format=memory_format)

    @pytest.mark.parametrize("parameter_type", TYPES, ids=str)
    def test_parameters_of_half_precision(self, parameter_type):
        x, *parameters = random_case("parameters", (2, 16, 5, 8)).inputs
        parameters = [parameter.to(parameter_type) for parameter in parameters]
        expected = run_native(x, *parameters)
        ours = run_native(x.cuda(), *(parameter.cuda() for parameter in parameters))
        torch.testing.assert_close(ours.cpu(), expected, atol=2e-6, rtol=0)

    def test_a_map_at_an_odd_address_is_read_number_by_number(self):
        x, *parameters = (tensor.cuda() for tensor in random_case("odd", (1, 8, 4, 4)).inputs)
        memory = torch.empty(x.numel() + 1, dtype=torch.float16, device="cuda")
        shifted = memory[1:].view(x.shape).copy_(x)
        assert torch.equal(run_native(shifted, *parameters), run_native(shifted.clone(), *parameters))

    @pytest.mark.parametrize("memory_format", FORMATS, ids=str)
    def test_same_bits_on_every_run_on_a_side_stream_and_in_a_graph(self, memory_format):
        x, *parameters = (tensor.cuda() for tensor in random_case("stream", (4, 64, 65, 64)).inputs)
        leaves = [t.requires_grad_() for t in (x.half().contiguous(memory_format=memory_format), *parameters)]

        def run():
            out = run_native(*leaves)
            return out.detach(), *torch.autograd.grad(out, leaves, torch.ones_like(out))

        results = [run(), run()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            results.append(run())
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results.append(run())
        graph.replay()
        torch.cuda.synchronize()
        for result in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))
