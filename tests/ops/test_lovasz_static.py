from __future__ import annotations

import pytest
import torch

from etnet.ops import reference
from etnet.ops.lovasz_static import lovasz_softmax
from helpers.lovasz_cases import CASES


def value_and_gradient(loss, logits, target, options):
    logits = logits.clone().requires_grad_()
    value = loss(logits, target, **options)
    value.backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_the_loss_of_the_reference(case):
    expected, expected_gradient = value_and_gradient(reference.lovasz_softmax, *case.inputs, case.options)
    value, gradient = value_and_gradient(lovasz_softmax, *case.inputs, case.options)
    torch.testing.assert_close(value, expected, atol=2e-6, rtol=1e-5)
    if case.smooth:
        torch.testing.assert_close(gradient, expected_gradient, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("per_image", [False, True])
def test_a_large_batch_keeps_its_digits_in_float32(classes, per_image):
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(0, classes, (2, 256, 256), generator=generator)
    logits = torch.randn(2, classes, 256, 256, generator=generator)
    logits.scatter_add_(1, target[:, None], torch.full((2, 1, 256, 256), 4.0))
    exact = value_and_gradient(reference.lovasz_softmax, logits.double(), target, {"per_image": per_image})
    value, gradient = value_and_gradient(lovasz_softmax, logits, target, {"per_image": per_image})
    torch.testing.assert_close(value.double(), exact[0], atol=0, rtol=1e-5)
    assert torch.dist(gradient.double(), exact[1]) < 1e-3 * exact[1].norm()


@pytest.mark.parametrize("per_image", [False, True])
def test_scores_of_ignored_pixels_do_not_matter_and_an_image_without_others_is_left_out(per_image):
    logits, target = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.ones(3, 4, 4).long()
    target[0, 0], target[1] = 0, 255
    options = {"per_image": per_image, "ignore_index": 255}
    spoilt = logits.clone()
    spoilt[1] = float("nan")
    expected = value_and_gradient(reference.lovasz_softmax, logits, target, options)
    value, gradient = value_and_gradient(lovasz_softmax, spoilt, target, options)
    torch.testing.assert_close(value, expected[0])
    torch.testing.assert_close(gradient, expected[1])


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (0, 3, 4, 4)])
def test_without_a_pixel_that_counts_loss_and_gradient_are_zero(shape):
    target = torch.full((shape[0], 4, 4), 255)
    value, gradient = value_and_gradient(lovasz_softmax, torch.ones(shape), target, {"ignore_index": 255})
    assert value == 0
    assert not gradient.any()


def test_what_counts_and_is_not_finite_and_a_wrong_target_give_nan():
    logits, target = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8)
    spoilt = logits.clone()
    spoilt[0, 0, 0, 0] = float("nan")
    assert lovasz_softmax(spoilt, target).isnan()
    target[0, 1, 1] = 2
    assert lovasz_softmax(logits, target).isnan()
    assert not lovasz_softmax(logits, target, ignore_index=2).isnan()


def test_it_is_one_graph_of_static_shapes():
    logits, target = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    options = {"ignore_index": 255, "classes": (2, 1)}
    compiled = torch.compile(lovasz_softmax, backend="eager", fullgraph=True)
    assert compiled(logits, target, **options) == lovasz_softmax(logits, target, **options)
