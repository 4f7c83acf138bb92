from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etnet.errors import DataError
from etnet.ops import reference
from etnet.ops.lovasz import lovasz_softmax
from helpers.lovasz import choquet_lovasz_softmax
from helpers.lovasz_cases import CASES, LovaszTester, check_types_and_layouts


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
