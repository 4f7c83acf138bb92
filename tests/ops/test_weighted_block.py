from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from etnet import native
from etnet.errors import DataError, EnvironmentFault, UsageError
from etnet.ops import _launch, reference
from etnet.ops import weighted_block as module
from etnet.ops.weighted_block import weighted_block
from helpers.ops import VALUE_TOLERANCE, Case, OpTester, spread_out

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


def test_a_dead_hidden_unit_gets_no_gradient():
    x, w1, b1, w2, b2 = random_case("dead", (2, 4, 3, 3)).inputs
    b1[1] = -100
    _, gradients = every_gradient(run_native, (x, w1, b1, w2, b2), torch.ones_like(x))
    assert torch.count_nonzero(gradients[1][1]) == 0
    assert gradients[2][1] == 0
    assert torch.count_nonzero(gradients[3][:, 1]) == 0
    assert torch.count_nonzero(gradients[1][0]) > 0


def test_every_half_number_is_read_and_rounded_as_torch_does():
    for dtype in (torch.float16, torch.bfloat16):
        every = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(dtype)
        x = every[every.isfinite()].view(-1, 1, 1, 1)
        # One pixel and one channel each: the scale sigmoid(0.3 + 0 mean) is the same for all.
        parameters = (torch.zeros(1, 1), torch.zeros(1), torch.zeros(1, 1), torch.tensor([0.3]))
        scale = run_native(torch.ones(1, 1, 1, 1), *parameters)
        assert torch.equal(run_native(x, *parameters), (x.float() * scale).to(dtype))


def test_gradcheck_in_float64_which_the_twin_computes():
    inputs = [tensor.double().requires_grad_() for tensor in random_case("gradcheck", (2, 4, 3, 2)).inputs]
    assert weighted_block(*inputs).dtype == torch.float64
    assert torch.autograd.gradcheck(weighted_block, inputs)
    assert torch.autograd.gradgradcheck(weighted_block, inputs)


def test_gradients_can_be_differentiated_again():
    case = random_case("twice", (2, 5, 4, 3))

    def penalty(function, inputs):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        (gradient,) = torch.autograd.grad(function(*leaves).square().sum(), leaves[0], create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), leaves)

    expected = penalty(reference.weighted_block, [tensor.double() for tensor in case.inputs])
    for ours, twins in zip(penalty(run_native, case.inputs), expected, strict=True):
        torch.testing.assert_close(ours.double(), twins, rtol=1e-4, atol=1e-5)


def test_frozen_inputs_get_no_gradient():
    x, w1, b1, w2, b2 = random_case("frozen", (2, 5, 4, 3)).inputs
    b1.requires_grad_()
    run_native(x, w1, b1, w2, b2).sum().backward()
    assert b1.grad is not None
    assert x.grad is None


def test_opcheck_accepts_every_type_layout_and_the_backward_operator():
    for memory_format in FORMATS:
        for dtype in TYPES:
            x, *parameters = random_case("opcheck", (2, 5, 4, 3)).inputs
            x = x.to(dtype).contiguous(memory_format=memory_format)
            torch.library.opcheck(torch.ops.etnet.weighted_block.default, (x, *parameters))
            _, state = torch.ops.etnet.weighted_block(x, *parameters)
            arguments = (torch.ones_like(x), x, state, parameters[0], parameters[2])
            torch.library.opcheck(torch.ops.etnet.weighted_block_backward.default, arguments)


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


def test_autocast_keeps_the_type_of_the_map_and_the_precision_of_the_parameters():
    x, *parameters = random_case("autocast", (2, 6, 3, 4)).inputs
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for method in ("native", "reference"):
            half = weighted_block(x.bfloat16(), *parameters, method=method)
            assert half.dtype == torch.bfloat16
            torch.testing.assert_close(
                half.float(), run_native(x.bfloat16().float(), *parameters), rtol=2**-8, atol=1e-6
            )
            assert weighted_block(x, *parameters, method=method).dtype == torch.float32


def test_exports_as_one_operator():
    class Block(torch.nn.Module):
        def forward(self, *inputs):
            return run_native(*inputs)

    inputs = random_case("export", (2, 6, 3, 4)).inputs
    program = torch.export.export(Block(), inputs)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "etnet.weighted_block.default" in called
    assert torch.equal(program.module()(*inputs), run_native(*inputs))


class TestChoice:
    """Which code `method="auto"` runs."""

    @pytest.fixture
    def kernel_calls(self, monkeypatch):
        calls = []
        run = _launch.weighted_block
        monkeypatch.setattr(_launch, "weighted_block", lambda *inputs: calls.append(inputs[0].shape) or run(*inputs))
        return calls

    @pytest.mark.parametrize("trains", [False, True])
    def test_large_float32_maps_go_to_the_kernel_and_small_ones_to_the_twin(self, kernel_calls, monkeypatch, trains):
        monkeypatch.setattr(module, "PLAIN_BELOW", {"training": 60, "inference": 120})
        _, *parameters = random_case("choice", (1, 3, 2, 2)).inputs
        with torch.set_grad_enabled(trains):
            for pixels in (19, 20, 39, 40):
                weighted_block(torch.zeros(1, 3, 1, pixels, requires_grad=True), *parameters)
        expected = [20, 39, 40] if trains else [40]
        assert [shape[3] for shape in kernel_calls] == expected

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_half_precision_goes_to_the_kernel(self, kernel_calls, dtype):
        x, *parameters = random_case("choice", (1, 3, 2, 2)).inputs
        weighted_block(x.to(dtype), *parameters)
        assert len(kernel_calls) == 1

    def test_both_give_the_same_up_to_rounding(self):
        inputs = random_case("choice", (2, 6, 5, 5)).inputs
        torch.testing.assert_close(run_native(*inputs), weighted_block(*inputs), atol=2e-6, rtol=0)


class TestWithoutNativeCode:
    @pytest.fixture(autouse=True)
    def no_module(self, monkeypatch):
        monkeypatch.setattr(native, "module", lambda: None)

    @pytest.mark.parametrize("dtype", TYPES, ids=str)
    def test_twin_gives_value_and_gradients(self, dtype):
        x, *parameters = random_case("twin", (2, 6, 5, 5)).inputs
        out_gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
        inputs = (x.to(dtype), *parameters)

        def operator(*tensors):
            return torch.ops.etnet.weighted_block(*tensors)[0]

        out, gradients = every_gradient(operator, inputs, out_gradient)
        expected, expected_gradients = every_gradient(reference.weighted_block, inputs, out_gradient)
        torch.testing.assert_close((out, *gradients), (expected, *expected_gradients), atol=1e-2, rtol=1e-2)
        assert weighted_block(*inputs).dtype == dtype


class TestRefusals:
    inputs = random_case("refusals", (2, 6, 3, 4), hidden=3).inputs

    @pytest.mark.parametrize(
        ("place", "tensor", "message"),
        [
            (
                0,
                torch.zeros(6, 3, 4),
                r"x is torch.float32 of shape \[6, 3, 4\]; expected floating point \[N, C, H, W\]",
            ),
            (0, torch.zeros(2, 6, 3, 4, dtype=torch.int64), r"x is torch.int64 of shape \[2, 6, 3, 4\]"),
            (1, torch.zeros(3, 5), r"w1 is torch.float32 of shape \[3, 5\]; expected .*w1 \[R, 6\]"),
            (2, torch.zeros(3, 1), r"w1 is .*expected .*b1 \[R\]"),
            (3, torch.zeros(6, 4), r"w2 is torch.float32 of shape \[6, 4\]; expected .*w2 \[6, R\]"),
            (4, torch.zeros(6, dtype=torch.int32), r"b2 is torch.int32 of shape \[6\]"),
            (4, torch.zeros(6, device="meta"), r"b2 is on meta, x on cpu; move one of them"),
        ],
    )
    def test_what_does_not_fit_is_named(self, place, tensor, message):
        inputs = list(self.inputs)
        inputs[place] = tensor
        with pytest.raises(UsageError, match=message):
            weighted_block(*inputs)

    def test_unknown_method_is_refused(self):
        with pytest.raises(UsageError, match="method is 'fast'; expected one of auto, native, reference"):
            weighted_block(*self.inputs, method="fast")

    def test_kernel_is_not_there_for_float64_or_without_nvcc(self, monkeypatch):
        with pytest.raises(EnvironmentFault, match=r"no kernel for torch.float64 on cpu; use method 'auto'"):
            run_native(*(tensor.double() for tensor in self.inputs))
        monkeypatch.setattr(native, "has_cuda", lambda: False)
        assert not module._kernel_is_there("cuda")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"images": 0}, r"sizes \[0, 6, 3, 4\] must all be at least 1"),
            ({"images": 2**20, "height": 2**20}, r"more than 2\^33 numbers; split the batch"),
            ({"hidden": 0}, r"0 hidden channels for 6 channels; expected 1..357913941"),
            ({"x_type": "float64"}, "x_type is 'float64'; expected float32, float16 or bfloat16"),
            ({"threads": 0}, "threads is 0; expected at least 1"),
        ],
    )
    def test_native_sizes_outside_their_limits_are_refused(self, changes, message):
        sizes = {
            "images": 2, "channels": 6, "hidden": 3, "height": 3, "width": 4, "channels_last": False,
            "x_type": "float32", "parameter_type": "float32", "threads": 1,
        }  # fmt: skip
        kernels = native.require()
        with pytest.raises(ValueError, match=message):
            kernels.weighted_block_workspace_bytes(kernels.WeightedBlockSizes(**(sizes | changes)))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"x": 0}, "x is a null pointer"),
            ({"b2": 0}, "b2 is a null pointer"),
            ({"out": 66}, "out: address 66 is not a multiple of 4"),
            ({"workspace": 72}, "workspace: address 72 is not a multiple of 64"),
            ({"workspace_bytes": 8}, "the workspace has 8 bytes; expected"),
        ],
    )
    def test_wrong_buffers_are_refused_before_memory_is_touched(self, changes, message):
        kernels = native.require()
        sizes = kernels.WeightedBlockSizes(
            images=2, channels=6, hidden=3, height=3, width=4, channels_last=True, x_type="float32",
            parameter_type="float32", threads=1,
        )  # fmt: skip
        buffers = dict.fromkeys(("x", "w1", "b1", "w2", "b2", "state", "out", "workspace"), 64)
        with pytest.raises(ValueError, match=message):
            kernels.weighted_block(sizes, **(buffers | {"workspace_bytes": 1 << 20} | changes))

    def test_an_error_of_the_native_part_is_translated(self, monkeypatch):
        monkeypatch.setattr(_launch, "_weighted_block_sizes", lambda *_: (_ for _ in ()).throw(ValueError("too large")))
        with pytest.raises(DataError, match="too large"):
            run_native(*self.inputs)


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
