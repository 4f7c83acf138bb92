from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etnet import native
from etnet.errors import DataError, EnvironmentFault, UsageError
from etnet.ops import lovasz, reference
from etnet.ops.lovasz import lovasz_softmax
from helpers.lovasz import choquet_lovasz_softmax
from helpers.ops import Case, OpTester


def random_case(name: str, shape: tuple[int, ...], *, ignore: bool = False, dtype=torch.int64, **options) -> Case:
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    images, classes, height, width = shape
    logits = 2 * torch.randn(shape, generator=generator)
    target = torch.randint(0, classes, (images, height, width), generator=generator)
    if ignore:
        target[torch.rand(target.shape, generator=generator) < 0.3] = 255
        options["ignore_index"] = 255
    return Case(name, (logits, target.to(dtype)), options)


def constant_case(name: str, value: float, classes: int, **options) -> Case:
    target = torch.arange(2 * 3 * 5).view(2, 3, 5) % classes
    return Case(name, (torch.full((2, classes, 3, 5), value), target), options, smooth=False)


def extreme_case(name: str, large: float) -> Case:
    signs = torch.randint(0, 2, (2, 3, 4, 5), generator=torch.Generator().manual_seed(1)).float() * 2 - 1
    target = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(2))
    return Case(name, (signs * large, target), smooth=False)


CASES = [
    random_case("binary", (2, 2, 6, 5)),
    random_case("four_classes", (3, 4, 5, 7)),
    random_case("uint8_target", (2, 3, 4, 4), dtype=torch.uint8),
    random_case("int32_target", (2, 3, 4, 4), dtype=torch.int32),
    random_case("one_pixel", (1, 3, 1, 1)),
    random_case("more_than_one_block", (1, 2, 1, 2051)),
    random_case("ignored_pixels", (2, 3, 6, 5), ignore=True),
    random_case("ignored_pixels_uint8", (2, 3, 6, 5), ignore=True, dtype=torch.uint8),
    random_case("ignored_class", (2, 3, 6, 5), ignore_index=0),
    random_case("per_image", (3, 3, 4, 5), per_image=True),
    random_case("per_image_ignored", (3, 3, 4, 5), ignore=True, per_image=True),
    random_case("all_classes", (2, 6, 1, 2), classes="all"),
    random_case("listed_classes", (2, 4, 3, 5), classes=(3, 1)),
    random_case("listed_absent_class_per_image", (4, 6, 1, 2), classes=[5], per_image=True),
    constant_case("constant_binary", 0.0, 2),
    constant_case("constant_four_classes", -3.5, 4),
    constant_case("constant_per_image", 1.0, 2, per_image=True),
    extreme_case("logits_of_100", 100.0),
    extreme_case("logits_of_1e30", 1e30),
    Case("one_class", (torch.randn(2, 1, 3, 3), torch.zeros(2, 3, 3, dtype=torch.int64)), smooth=False),
]


class LovaszTester(OpTester):
    operator = torch.ops.etnet.lovasz_softmax.default
    method: ClassVar[str]
    bins: ClassVar[int] = 64

    def run(self, *inputs, **options):
        return lovasz_softmax(*inputs, method=self.method, bins=self.bins, **options)

    def operator_arguments(self, case):
        classes = case.options.get("classes", "present")
        logits, target = case.inputs
        return (
            logits.clone().requires_grad_(),
            target,
            classes if isinstance(classes, str) else "listed",
            [] if isinstance(classes, str) else list(classes),
            case.options.get("per_image", False),
            case.options.get("ignore_index"),
            self.method,
            self.bins,
            True,
        )


class TestSort(LovaszTester):
    method = "sort"
    cases = CASES

    def twin(self, *inputs, **options):
        return reference.lovasz_softmax(*inputs, **options)


class TestHistogram(LovaszTester):
    method = "histogram"
    # Away from the middle between two bins, where float32 and float64 round to different ones.
    cases = [case for case in CASES if case.name != "more_than_one_block"]  # noqa: RUF012

    def twin(self, *inputs, **options):
        return reference.lovasz_softmax(*inputs, **options, bins=self.bins)

    # The loss of rounded errors is a step function; its derivative passes through the rounding.
    test_gradient_matches_finite_differences_of_the_twin = None


def test_hand_computed_example():
    # Class 1: errors 0.7 (background), 0.4, 0.1 (its two pixels), each of weight 1/3: loss 0.4.
    # Class 0: errors 0.7 (its pixel, weight 1), 0.4, 0.1 (weight 0): loss 0.7.
    probability = torch.tensor([[0.4, 0.3, 0.1], [0.6, 0.7, 0.9]]).view(1, 2, 1, 3)
    loss = lovasz_softmax(probability.log(), torch.tensor([[[1, 0, 1]]]), method="sort")
    assert loss.item() == pytest.approx((0.4 + 0.7) / 2, abs=1e-6)
    single = lovasz_softmax(probability.log(), torch.tensor([[[1, 0, 1]]]), classes=[1], method="sort")
    assert single.item() == pytest.approx(0.4, abs=1e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 9), st.integers(0, 9)),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 0.1, 3.0, 40.0]),
    classes=st.sampled_from(["present", "all", (0,)]),
    per_image=st.booleans(),
    ignore_index=st.sampled_from([None, 0, 255]),
)
def test_any_shape_matches_the_choquet_integral(shape, seed, scale, classes, per_image, ignore_index):
    images, channels, height, width = shape
    generator = np.random.default_rng(seed)
    logits = (scale * generator.standard_normal(shape)).astype(np.float32)
    target = generator.integers(0, channels, (images, height, width))
    if ignore_index == 255:
        target[generator.random(target.shape) < 0.4] = 255
    expected = choquet_lovasz_softmax(logits, target, classes=classes, per_image=per_image, ignore_index=ignore_index)
    leaf = torch.from_numpy(logits).requires_grad_()
    loss = lovasz_softmax(
        leaf,
        torch.from_numpy(target),
        classes=classes,
        per_image=per_image,
        ignore_index=ignore_index,
        method="sort",
    )
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=2e-6)
    assert torch.isfinite(leaf.grad).all()


def test_gradient_of_ties_follows_the_memory_order():
    # All errors are 0.5 and G = 1 for class 1: ranked first to last the weights are 1/2, 1/6 (background), 1/3 (its
    # pixel), 0 (background); through softmax each p (d - mean d) is a quarter of +-weight.
    logits = torch.zeros(1, 2, 1, 4, requires_grad=True)
    lovasz_softmax(logits, torch.tensor([[[0, 0, 1, 0]]]), classes=[1], method="sort").backward()
    expected = torch.tensor([1 / 2, 1 / 6, -1 / 3, 0.0]) / 4
    torch.testing.assert_close(logits.grad[0, 1, 0], expected)
    torch.testing.assert_close(logits.grad[0, 0, 0], -expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 0.1, 3.0, 40.0]),
    classes=st.sampled_from(["present", "all", (0,)]),
    per_image=st.booleans(),
    bins=st.sampled_from([2, 3, 16, 255, 4096, 65536]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_histogram_stays_within_its_bound(shape, seed, scale, classes, per_image, bins, dtype):
    generator = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()
    target = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    options = {"classes": classes, "per_image": per_image}
    exact = reference.lovasz_softmax(logits.detach().double(), target, **options).item()
    loss = lovasz_softmax(logits, target, **options, method="histogram", bins=bins)
    loss.backward()
    assert abs(loss.item() - exact) <= 1 / (2 * (bins - 1)) + 2e-6
    assert torch.isfinite(logits.grad).all()


def test_histogram_bound_is_reached():
    # One pixel of class 0 with error 1/4 + 1/8, rounded to the nearest multiple of 1/4: off by half a bin.
    logits = torch.tensor([0.625 - 1e-6, 0.375 + 1e-6]).log().view(1, 2, 1, 1)
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    exact = lovasz_softmax(logits, target, method="sort").item()
    rounded = lovasz_softmax(logits, target, method="histogram", bins=5).item()
    assert abs(rounded - exact) == pytest.approx(1 / 8, abs=1e-5)


@pytest.mark.parametrize("classes", [2, 4])
def test_histogram_gradient_points_as_the_exact_one(classes):
    generator = torch.Generator().manual_seed(classes)
    logits = (2 * torch.randn(2, classes, 64, 64, generator=generator)).requires_grad_()
    target = torch.randint(0, classes, (2, 64, 64), generator=generator)
    exact, rounded = (
        torch.autograd.grad(lovasz_softmax(logits, target, method=method), logits)[0].flatten()
        for method in ("sort", "histogram")
    )
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=0) > 0.9999
    assert rounded.norm() == pytest.approx(exact.norm().item(), rel=1e-3)


def check_types_and_layouts(device, method, channels_last, logits_type, target_type, classes):
    generator = torch.Generator().manual_seed(9)
    # Multiples of 1/8 up to 8 are the same number in all three types.
    logits = ((torch.randn(2, classes, 33, 37, generator=generator) * 16).round().clamp(-64, 64) / 8).to(device)
    target = torch.randint(0, classes, (2, 33, 37), generator=generator).to(device)
    target[0, :3] = 100
    options = {"ignore_index": 100, "method": method}
    plain = logits.clone().requires_grad_()
    expected = lovasz_softmax(plain, target, **options)
    expected.backward()
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    other = logits.to(logits_type).contiguous(memory_format=memory_format).requires_grad_()
    loss = lovasz_softmax(other, target.to(target_type), **options)
    loss.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(other.grad, plain.grad.to(logits_type))
    assert other.grad.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("method", ["sort", "histogram"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("logits_type", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("target_type", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("classes", [2, 3])
def test_every_type_and_layout_gives_the_same(method, channels_last, logits_type, target_type, classes):
    check_types_and_layouts("cpu", method, channels_last, logits_type, target_type, classes)


def test_every_float16_number_is_read_as_torch_reads_it():
    every = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    finite = every[every.isfinite()]
    logits = torch.stack([finite, torch.zeros_like(finite)]).view(1, 2, 1, -1)
    target = torch.zeros(1, 1, finite.numel(), dtype=torch.uint8)
    assert torch.equal(lovasz_softmax(logits, target), lovasz_softmax(logits.float(), target))
    for bad in every[~every.isfinite() & (every != -torch.inf)][::97]:
        assert lovasz_softmax(bad.view(1, 1, 1, 1).expand(1, 2, 1, 1), target[:, :, :1]).isnan()


def test_half_precision_gradient_is_scaled_before_it_is_rounded():
    logits = torch.zeros(1, 2, 256, 256, dtype=torch.float16, requires_grad=True)
    target = torch.zeros(1, 256, 256, dtype=torch.uint8)
    target[0, 0, 0] = 1
    (gradient,) = torch.autograd.grad(2.0**16 * lovasz_softmax(logits, target, classes=[0]), logits)
    # Each pixel's share, 2^-16 / 4 times, is too small for float16 to hold precisely.
    assert gradient[0, 1, 5, 5].item() == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("method", ["sort", "histogram"])
@pytest.mark.parametrize("images", [1, 3])
def test_large_inputs_do_not_depend_on_the_number_of_threads(method, images, torch_threads):
    generator = torch.Generator().manual_seed(10)
    logits = torch.randn(images, 3, 150, 211, generator=generator).requires_grad_()
    target = torch.randint(0, 3, (images, 150, 211), generator=generator)
    for per_image in (False, True):
        results = []
        for threads in (1, 2, 3, 7):
            torch_threads(threads)
            loss = lovasz_softmax(logits, target, method=method, per_image=per_image)
            results.append((loss, torch.autograd.grad(loss, logits)[0]))
        for loss, gradient in results[1:]:
            assert torch.equal(loss, results[0][0])
            assert torch.equal(gradient, results[0][1])


def test_many_classes_match_the_twin():
    generator = torch.Generator().manual_seed(11)
    logits = torch.randn(2, 19, 30, 41, generator=generator).requires_grad_()
    target = torch.randint(0, 12, (2, 30, 41), generator=generator)
    for classes in ("present", "all"):
        expected = reference.lovasz_softmax(logits.detach().double(), target, classes=classes)
        for method, tolerance in (("sort", 2e-6), ("histogram", 1 / 8190)):
            loss = lovasz_softmax(logits, target, classes=classes, method=method)
            assert loss.item() == pytest.approx(expected.item(), abs=tolerance)


@pytest.mark.parametrize("method", ["sort", "histogram", "reference"])
class TestDegenerateCases:
    def tolerance(self, method):
        return 1 / (2 * 4095) + 1e-6 if method == "histogram" else 1e-6

    def loss(self, shape, target, method, **options):
        logits = torch.randn(shape, generator=torch.Generator().manual_seed(3)).requires_grad_()
        loss = lovasz_softmax(logits, target, method=method, **options)
        loss.backward()
        return loss.item(), logits.grad

    @pytest.mark.parametrize("per_image", [False, True])
    @pytest.mark.parametrize("shape", [(0, 2, 4, 4), (2, 2, 0, 4), (2, 2, 4, 0)])
    def test_empty_input_gives_zero(self, method, shape, per_image):
        target = torch.zeros(shape[0], *shape[2:], dtype=torch.int64)
        loss, gradient = self.loss(shape, target, method, per_image=per_image)
        assert loss == 0.0
        assert gradient.shape == shape

    @pytest.mark.parametrize("per_image", [False, True])
    def test_all_pixels_ignored_gives_zero_and_zero_gradient(self, method, per_image):
        target = torch.full((2, 4, 4), 255)
        loss, gradient = self.loss((2, 3, 4, 4), target, method, per_image=per_image, ignore_index=255, classes="all")
        assert loss == 0.0
        assert torch.count_nonzero(gradient) == 0

    def test_an_ignored_image_does_not_dilute_the_mean(self, method):
        target = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(4))
        alone, _ = self.loss((1, 3, 4, 4), target[:1], method, per_image=True)
        target[1] = 255
        pair, gradient = self.loss((2, 3, 4, 4), target, method, per_image=True, ignore_index=255)
        # The generator is the same, so the first image has the same logits in both.
        assert pair == pytest.approx(alone, abs=1e-6)
        assert torch.count_nonzero(gradient[1]) == 0

    def test_one_class_gives_zero(self, method):
        loss, gradient = self.loss((2, 1, 3, 3), torch.zeros(2, 3, 3, dtype=torch.int64), method)
        assert loss == 0.0
        assert torch.count_nonzero(gradient) == 0

    def test_absent_class_costs_its_largest_probability(self, method):
        logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(5))
        target = torch.zeros(1, 4, 4, dtype=torch.int64)
        loss = lovasz_softmax(logits, target, classes=[2], method=method)
        assert loss.item() == pytest.approx(logits.softmax(1)[:, 2].max().item(), abs=self.tolerance(method))

    def test_absent_class_does_not_count_among_the_present(self, method):
        logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(6))
        target = torch.randint(0, 2, (1, 4, 4), generator=torch.Generator().manual_seed(7))
        present = lovasz_softmax(logits, target, method=method)
        assert present.item() == lovasz_softmax(logits, target, classes=[0, 1], method=method).item()

    def test_perfect_prediction_costs_nothing(self, method):
        target = torch.randint(0, 3, (2, 5, 5), generator=torch.Generator().manual_seed(8))
        logits = 200 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
        assert lovasz_softmax(logits, target, method=method).item() == 0.0

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_non_finite_logit_gives_a_nan_loss(self, method, bad):
        logits = torch.zeros(2, 2, 3, 3)
        logits[1, 0, 2, 1] = bad
        target = torch.zeros(2, 3, 3, dtype=torch.int64)
        assert lovasz_softmax(logits, target, method=method).isnan()

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_non_finite_logit_of_an_ignored_pixel_is_harmless(self, method, bad):
        logits = torch.zeros(1, 2, 3, 3)
        logits[0, 0, 2, 1] = bad
        logits.requires_grad_()
        target = torch.zeros(1, 3, 3, dtype=torch.int64)
        target[0, 2, 1] = 255
        loss = lovasz_softmax(logits, target, ignore_index=255, method=method)
        loss.backward()
        assert loss.item() == pytest.approx(0.5, abs=self.tolerance(method))
        assert torch.isfinite(logits.grad).all()

    def test_minus_infinity_is_probability_zero(self, method):
        logits = torch.zeros(1, 3, 2, 2)
        logits[:, 2] = -torch.inf
        target = torch.tensor([[[0, 1], [1, 0]]])
        two = lovasz_softmax(logits[:, :2], target, method=method)
        assert lovasz_softmax(logits, target, method=method).item() == two.item()

    @pytest.mark.parametrize(
        ("value", "dtype", "ignore_index", "tail"),
        [
            (3, torch.int64, None, "0..2"),
            (-1, torch.int32, 255, "0..2 or the ignore_index 255"),
            (200, torch.uint8, 7, "7"),
        ],
    )
    def test_target_out_of_range_is_named_with_its_position(self, method, value, dtype, ignore_index, tail):
        target = torch.zeros(2, 4, 5, dtype=dtype)
        target[1, 2, 3] = value
        target[1, 3, 0] = value
        message = rf"value {value} at \[image 1, row 2, column 3\]; expected a class index in .*{tail}$"
        with pytest.raises(DataError, match=message):
            lovasz_softmax(torch.zeros(2, 3, 4, 5), target, ignore_index=ignore_index, method=method)

    def test_ignore_index_beyond_uint8_ignores_nothing(self, method):
        target = torch.full((1, 2, 2), 1, dtype=torch.uint8)
        loss = lovasz_softmax(torch.zeros(1, 2, 2, 2), target, ignore_index=257, method=method)
        assert loss.item() == pytest.approx(0.5, abs=self.tolerance(method))


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
        arguments = TestHistogram().operator_arguments(case)
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


@pytest.mark.gpu
class TestCuda:
    @pytest.mark.parametrize("method", ["auto", "sort", "histogram"])
    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_value_and_gradient_are_those_of_the_cpu(self, case, method):
        options = case.options | {"method": method, "bins": 64}
        ours = case.inputs[0].clone().requires_grad_()
        theirs = case.inputs[0].cuda().requires_grad_()
        expected = lovasz_softmax(ours, case.inputs[1], **options)
        loss = lovasz_softmax(theirs, case.inputs[1].cuda(), **options)
        assert loss.item() == pytest.approx(expected.item(), abs=2e-6 if method != "histogram" else 2e-5)
        expected.backward()
        loss.backward()
        if case.smooth:
            torch.testing.assert_close(theirs.grad.cpu(), ours.grad, atol=2e-6, rtol=1e-5)

    @pytest.mark.parametrize("method", ["sort", "histogram"])
    @pytest.mark.parametrize("channels_last", [False, True])
    @pytest.mark.parametrize("logits_type", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("target_type", [torch.uint8, torch.int16, torch.int32, torch.int64])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_every_type_and_layout_gives_the_same(self, method, channels_last, logits_type, target_type, classes):
        check_types_and_layouts("cuda", method, channels_last, logits_type, target_type, classes)

    @pytest.mark.parametrize("method", ["sort", "histogram"])
    @pytest.mark.parametrize("classes", [2, 5])
    def test_same_bits_on_every_run_on_a_side_stream_and_in_a_graph(self, method, classes):
        generator = torch.Generator().manual_seed(12)
        logits = torch.randn(4, classes, 129, 257, generator=generator).cuda().requires_grad_()
        target = torch.randint(0, classes, (4, 129, 257), generator=generator).cuda()

        def run():
            loss = lovasz_softmax(logits, target, method=method)
            return loss, torch.autograd.grad(loss, logits)[0]

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
        for loss, gradient in results[1:]:
            assert torch.equal(loss, results[0][0])
            assert torch.equal(gradient, results[0][1])

    @pytest.mark.parametrize("method", ["sort", "histogram"])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_invalid_target_or_nan_breaks_loss_and_gradient(self, method, classes):
        logits = torch.zeros(2, classes, 33, 35, device="cuda")
        target = torch.zeros(2, 33, 35, dtype=torch.int64, device="cuda")
        for place, value in ((target, 77), (logits[:, 0], torch.nan), (logits[:, 1], torch.inf)):
            before = place[1, 4, 5].item()
            place[1, 4, 5] = value
            leaf = logits.clone().requires_grad_()
            loss = lovasz_softmax(leaf, target, method=method)
            loss.backward()
            assert loss.isnan()
            assert leaf.grad.isnan().all()
            place[1, 4, 5] = before

    @pytest.mark.parametrize("bins", [2, 255, 6144, 6145, 65536])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_histogram_stays_within_its_bound(self, bins, classes):
        generator = torch.Generator().manual_seed(bins)
        logits = 2 * torch.randn(2, classes, 65, 129, generator=generator)
        target = torch.randint(0, classes, (2, 65, 129), generator=generator)
        exact = reference.lovasz_softmax(logits.double(), target).item()
        loss = lovasz_softmax(logits.cuda(), target.cuda(), method="histogram", bins=bins).item()
        assert abs(loss - exact) <= 1 / (2 * (bins - 1)) + 2e-6

    def test_many_classes_and_many_listed_ones(self):
        generator = torch.Generator().manual_seed(13)
        logits = torch.randn(1, 300, 17, 19, generator=generator)
        target = torch.randint(0, 300, (1, 17, 19), generator=generator)
        for classes in ("present", "all", tuple(range(290, 100, -1))):
            for method in ("sort", "histogram"):
                options = {"classes": classes, "method": method}
                expected = lovasz_softmax(logits, target, **options).item()
                assert lovasz_softmax(logits.cuda(), target.cuda(), **options).item() == pytest.approx(
                    expected, abs=2e-5
                )
