"""The weighted block as an operator of torch: autograd, autocast, export, choice of the code, refusals."""

from __future__ import annotations

import pytest
import torch

from etnet import native
from etnet.errors import DataError, EnvironmentFault, UsageError
from etnet.ops import _launch, reference
from etnet.ops import weighted_block as module
from etnet.ops.weighted_block import weighted_block
from helpers.weighted_block import FORMATS, TYPES, every_gradient, random_case, run_native


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
            (
                {"images": 2**33, "channels": 1, "height": 1, "width": 1, "hidden": 2**31 - 1},
                "2147483647 hidden channels",
            ),
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

    @pytest.mark.skipif(not native.has_cuda(), reason="the native module was built without CUDA")
    def test_grids_that_would_wrap_around_are_refused(self):
        kernels = native.require()

        def workspace_bytes(**changes):
            sizes = {
                "channels": 2, "hidden": 1, "height": 1, "width": 2, "channels_last": True, "x_type": "float16",
                "parameter_type": "float32", "threads": 1,
            }  # fmt: skip
            return kernels.weighted_block_cuda_workspace_bytes(kernels.WeightedBlockSizes(**(sizes | changes)))

        assert workspace_bytes(images=2**31 - 1) > 0
        for changes in ({"images": 2**31}, {"images": 2**31, "channels_last": False}, {"images": 2**32, "width": 1}):
            with pytest.raises(ValueError, match=r"more than a grid of 2\^31 - 1 blocks; split the batch"):
                workspace_bytes(**changes)

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
