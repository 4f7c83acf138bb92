"""The tester that every native operator gets: subclass `OpTester` in `tests/ops/test_<op>.py` and list cases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

VALUE_TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}
"""Largest difference from the float64 twin, by the type of the inputs."""


@dataclass(frozen=True)
class Case:
    """Inputs of one call; `smooth` says that the op is differentiable there (no ties), so gradients are unique."""

    name: str
    inputs: tuple[Tensor, ...]
    options: dict[str, Any] = field(default_factory=dict)
    smooth: bool = True


def with_gradient(function, case: Case, dtype: torch.dtype, layout=lambda tensor: tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient with respect to the first input, which is converted to `dtype` and laid out anew."""
    first = layout(case.inputs[0].to(dtype)).detach().requires_grad_()
    value = function(first, *case.inputs[1:], **case.options)
    (gradient,) = torch.autograd.grad(value.sum(), first)
    return value.detach(), gradient


def spread_out(tensor: Tensor) -> Tensor:
    """The same values behind strides that no kernel may take for granted."""
    wide = torch.full((*tensor.shape[:-1], tensor.shape[-1] * 2 + 1), 77, dtype=tensor.dtype)
    view = wide[..., 1::2]
    view.copy_(tensor)
    return view


class OpTester:
    """Compares an op with its plain torch twin in float64 and checks what torch expects of an op."""

    cases: ClassVar[list[Case]]
    operator: ClassVar[Any]
    """The registered overload, for opcheck."""

    def run(self, *inputs: Tensor, **options: Any) -> Tensor:
        """The public function."""
        raise NotImplementedError

    def twin(self, *inputs: Tensor, **options: Any) -> Tensor:
        """The plain torch function; keeps float64."""
        raise NotImplementedError

    def operator_arguments(self, case: Case) -> tuple[Any, ...]:
        """Arguments of `operator` for a case."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "smooth_case" in metafunc.fixturenames:
            chosen = [case for case in self.cases if case.smooth]
            metafunc.parametrize("smooth_case", chosen, ids=[case.name for case in chosen])
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", self.cases, ids=[case.name for case in self.cases])

    def test_value_matches_the_float64_twin(self, case: Case) -> None:
        value = self.run(*case.inputs, **case.options)
        expected = self.twin(case.inputs[0].double(), *case.inputs[1:], **case.options)
        torch.testing.assert_close(value.double(), expected, atol=VALUE_TOLERANCE[torch.float32], rtol=0)

    def test_gradient_matches_the_float64_twin(self, smooth_case: Case) -> None:
        _, gradient = with_gradient(self.run, smooth_case, torch.float32)
        _, expected = with_gradient(self.twin, smooth_case, torch.float64)
        torch.testing.assert_close(gradient.double(), expected, atol=VALUE_TOLERANCE[torch.float32], rtol=1e-5)

    def test_gradient_matches_finite_differences_of_the_twin(self, smooth_case: Case) -> None:
        _, gradient = with_gradient(self.run, smooth_case, torch.float32)
        first = smooth_case.inputs[0].double()
        step = 1e-7
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            direction = torch.randn(first.shape, generator=generator, dtype=torch.float64)
            ahead, behind = (
                self.twin(first + sign * step * direction, *smooth_case.inputs[1:], **smooth_case.options)
                for sign in (1, -1)
            )
            slope = (ahead - behind).sum() / (2 * step)
            torch.testing.assert_close((gradient.double() * direction).sum(), slope, atol=1e-5, rtol=1e-4)

    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck's own doing
    def test_opcheck_accepts_the_registration(self, case: Case) -> None:
        torch.library.opcheck(self.operator, self.operator_arguments(case))

    def test_memory_layout_changes_nothing(self, case: Case) -> None:
        expected = with_gradient(self.run, case, torch.float32)
        layouts = [spread_out]
        if case.inputs[0].ndim == 4:
            layouts.append(lambda tensor: tensor.contiguous(memory_format=torch.channels_last))
        for layout in layouts:
            actual = with_gradient(self.run, case, torch.float32, layout)
            assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))

    def test_other_inputs_may_be_non_contiguous(self, case: Case) -> None:
        spread = Case(case.name, (case.inputs[0], *map(spread_out, case.inputs[1:])), case.options)
        expected = with_gradient(self.run, case, torch.float32)
        actual = with_gradient(self.run, spread, torch.float32)
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))

    def test_inputs_are_left_as_they_were(self, case: Case) -> None:
        before = [tensor.clone() for tensor in case.inputs]
        with_gradient(self.run, case, torch.float32)
        assert all(torch.equal(a, b) for a, b in zip(before, case.inputs, strict=True))

    def test_number_of_threads_changes_nothing(self, case: Case, torch_threads) -> None:
        torch_threads(1)
        expected = with_gradient(self.run, case, torch.float32)
        for threads in (2, 5):
            torch_threads(threads)
            actual = with_gradient(self.run, case, torch.float32)
            assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_half_precision_input_is_computed_in_float32(self, smooth_case: Case, dtype: torch.dtype) -> None:
        value, gradient = with_gradient(self.run, smooth_case, dtype)
        rounded = Case("", (smooth_case.inputs[0].to(dtype).float(), *smooth_case.inputs[1:]), smooth_case.options)
        expected_value, expected_gradient = with_gradient(self.run, rounded, torch.float32)
        assert value.dtype == torch.float32
        assert gradient.dtype == dtype
        assert torch.equal(value, expected_value)
        assert torch.equal(gradient, expected_gradient.to(dtype))

    def test_autocast_does_not_lower_the_precision(self, smooth_case: Case) -> None:
        expected = with_gradient(self.run, smooth_case, torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = with_gradient(self.run, smooth_case, torch.float32)
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))

    def test_compiles_without_a_graph_break(self, smooth_case: Case) -> None:
        torch.compiler.reset()
        # aot_eager traces forward and backward through the fake kernel but leaves out the minutes of C++ compilation.
        compiled = torch.compile(self.run, fullgraph=True, backend="aot_eager")
        expected = with_gradient(self.run, smooth_case, torch.float32)
        actual = with_gradient(compiled, smooth_case, torch.float32)
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
