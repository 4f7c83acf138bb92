from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from etnet import native
from etnet.errors import EnvironmentFault, UsageError
from etnet.ops import lovasz
from etnet.ops.lovasz import lovasz_softmax
from helpers.lovasz_cases import CASES, LovaszTester


class HistogramArguments(LovaszTester):
    method = "histogram"


def test_nan_fills_the_whole_gradient():
    logits = torch.zeros(2, 2, 3, 3)
    logits[0, 0, 0, 0] = torch.nan
    logits.requires_grad_()
    lovasz_softmax(logits, torch.zeros(2, 3, 3, dtype=torch.int64), method="sort").backward()
    assert logits.grad.isnan().all()


def test_look_up_passes_opcheck_and_needs_no_layout():
    for case in CASES:
        logits, target = case.inputs
        options = case.options
        arguments = HistogramArguments().operator_arguments(case)
        _, weights = torch.ops.etnet.lovasz_softmax(logits, *arguments[1:])
        inputs = (logits, target, weights, torch.tensor(-3.0), options.get("per_image", False))
        look_up = torch.ops.etnet.lovasz_softmax_look_up.default
        torch.library.opcheck(look_up, (*inputs, options.get("ignore_index")))


@pytest.mark.parametrize("method", ["sort", "histogram"])
def test_backward_twice_gives_the_same_twice(method):
    case = CASES[1]
    logits = case.inputs[0].clone().requires_grad_()
    loss = lovasz_softmax(logits, case.inputs[1], method=method)
    (once,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (again,) = torch.autograd.grad(2 * loss, logits)
    assert torch.equal(again, 2 * once)


@pytest.mark.parametrize("classes", [2, 3])
def test_nan_of_one_image_fills_the_gradient_of_all(classes):
    for method in ("sort", "histogram"):
        logits = torch.randn(3, classes, 4, 5)
        logits[1, 0, 2, 2] = torch.nan
        logits.requires_grad_()
        target = torch.zeros(3, 4, 5, dtype=torch.int64)
        target[2, 0, 0] = 255
        loss = lovasz_softmax(logits, target, per_image=True, ignore_index=255, method=method)
        loss.backward()
        assert loss.isnan()
        assert logits.grad.isnan().all()


def test_gradient_is_scaled_by_what_follows():
    case = CASES[0]
    logits = case.inputs[0].clone().requires_grad_()
    (once,) = torch.autograd.grad(lovasz_softmax(logits, case.inputs[1]), logits)
    (scaled,) = torch.autograd.grad(-4 * lovasz_softmax(logits, case.inputs[1]), logits)
    assert torch.equal(scaled, -4 * once)


def test_no_gradient_is_computed_where_none_is_wanted():
    logits, target = CASES[1].inputs
    expected = lovasz_softmax(logits.clone().requires_grad_(), target).item()
    plain = lovasz_softmax(logits, target)
    assert not plain.requires_grad
    assert plain.item() == expected
    with torch.no_grad():
        assert lovasz_softmax(logits.clone().requires_grad_(), target).item() == expected


def test_second_differentiation_is_refused_and_the_reference_method_allows_it():
    logits, target = CASES[0].inputs
    logits = logits.clone().requires_grad_()
    with pytest.raises(UsageError, match="method='reference'"):
        torch.autograd.grad(lovasz_softmax(logits, target), logits, create_graph=True)
    loss = lovasz_softmax(logits, target, method="reference")
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), logits)
    assert torch.isfinite(second).all()
    assert torch.count_nonzero(second) > 0


def test_exports_as_one_node():
    class Criterion(torch.nn.Module):
        def forward(self, logits, target):
            return lovasz_softmax(logits, target)

    program = torch.export.export(Criterion(), CASES[0].inputs)
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(torch.ops.etnet.lovasz_softmax.default) == 1


@pytest.mark.long
def test_inductor_compiles_it():
    logits, target = CASES[0].inputs
    compiled = torch.compile(lambda a, b: 2 * lovasz_softmax(3 * a, b), fullgraph=True)
    assert compiled(logits, target).item() == pytest.approx(2 * lovasz_softmax(3 * logits, target).item(), abs=1e-6)


class TestWrongArguments:
    logits = torch.zeros(2, 3, 4, 5)
    target = torch.zeros(2, 4, 5, dtype=torch.int64)

    @pytest.mark.parametrize("shape", [(2, 3, 4), (2, 0, 4, 5), (3,)])
    def test_logits_of_another_shape_are_refused(self, shape):
        with pytest.raises(UsageError, match=r"\[N, C, H, W\]"):
            lovasz_softmax(torch.zeros(shape), self.target)

    def test_integer_logits_are_refused(self):
        with pytest.raises(UsageError, match=r"torch\.int64"):
            lovasz_softmax(self.logits.long(), self.target)

    @pytest.mark.parametrize(
        "target",
        [torch.zeros(2, 5, 4, dtype=torch.int64), torch.zeros(2, 4, 5), torch.zeros(2, 4, 5, dtype=torch.bool)],
    )
    def test_target_of_another_shape_or_type_is_refused(self, target):
        with pytest.raises(UsageError, match=r"expected integer class indices of shape \[2, 4, 5\]"):
            lovasz_softmax(self.logits, target)

    @pytest.mark.parametrize("classes", ["some", [], [0, 0], [3], [-1]])
    def test_unknown_classes_are_refused(self, classes):
        with pytest.raises(UsageError, match="classes is"):
            lovasz_softmax(self.logits, self.target, classes=classes)

    def test_unknown_method_is_refused(self):
        with pytest.raises(UsageError, match="method is 'fast'; expected one of auto, sort, histogram, reference"):
            lovasz_softmax(self.logits, self.target, method="fast")

    @pytest.mark.parametrize("bins", [-1, 1, 65537])
    def test_number_of_bins_outside_its_limits_is_refused(self, bins):
        with pytest.raises(UsageError, match=f"bins is {bins}; expected a number in 2..65536"):
            lovasz_softmax(self.logits, self.target, method="histogram", bins=bins)

    def test_target_on_another_device_is_refused(self):
        with pytest.raises(UsageError, match="target is on meta"):
            lovasz_softmax(self.logits, self.target.to("meta"))

    @pytest.mark.parametrize("method", ["sort", "histogram"])
    def test_kernel_on_a_device_without_one_is_refused(self, method):
        with pytest.raises(EnvironmentFault, match=f"method '{method}' has no kernel for meta"):
            lovasz_softmax(self.logits.to("meta"), self.target.to("meta"), method=method)


@pytest.mark.parametrize("method", ["sort", "histogram"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_twin_behind_the_operator_gives_the_same(case, method, monkeypatch):
    # What runs where the native module is missing.
    options = case.options | {"method": method, "bins": 64}
    expected = lovasz_softmax(*case.inputs, **options).item()
    monkeypatch.setattr(native, "module", lambda: None)
    leaf = case.inputs[0].clone().requires_grad_()
    loss = lovasz_softmax(leaf, *case.inputs[1:], **options)
    loss.backward()
    # A pixel between two bins may fall into either of them: one weight more or less, times the width of a bin.
    assert loss.item() == pytest.approx(expected, abs=2e-6 if method == "sort" else 2e-5)
    if case.smooth:
        twin_gradient = leaf.grad.clone()
        monkeypatch.undo()
        leaf.grad = None
        lovasz_softmax(leaf, *case.inputs[1:], **options).backward()
        torch.testing.assert_close(twin_gradient, leaf.grad, atol=2e-6, rtol=1e-5)


def test_kernel_for_cuda_tensors_is_refused_where_the_build_has_none(monkeypatch):
    monkeypatch.setattr(native, "has_cuda", lambda: False)
    with pytest.raises(EnvironmentFault, match="no kernel for cuda tensors: the native module was built without nvcc"):
        lovasz._require_kernel(SimpleNamespace(device=torch.device("cuda")), "sort")
