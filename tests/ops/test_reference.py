from __future__ import annotations

import numpy as np
import pytest
import torch

from etnet.errors import DataError
from etnet.ops import reference
from helpers.lovasz import choquet_lovasz_softmax, jaccard_loss_of_mistakes


@pytest.mark.parametrize("members", [[1, 0, 1, 1, 0], [0, 0, 1], [1], [0], [0, 0, 0], [1, 1, 1]])
def test_jaccard_gradient_is_the_growth_of_the_jaccard_loss(members):
    foreground = np.array(members, bool)
    prefixes = [np.arange(foreground.size) < count for count in range(foreground.size + 1)]
    growth = np.diff([jaccard_loss_of_mistakes(prefix, foreground) for prefix in prefixes])
    np.testing.assert_allclose(reference.jaccard_gradient(torch.from_numpy(foreground)), growth, atol=1e-15)


@pytest.mark.parametrize("members", [[1, 0, 1, 1, 0], [0, 0, 1], [1], [0], [0, 0, 0]])
def test_jaccard_gradient_has_the_closed_form_of_the_native_kernel(members):
    total = sum(members)
    expected = []
    ahead, behind = 0, 0
    for rank, member in enumerate(members):
        if member:
            expected.append(1 / (total + behind))
            ahead += 1
        else:
            united = total + behind
            expected.append((total - ahead) / (united * (united + 1)) if total else float(rank == 0))
            behind += 1
    torch.testing.assert_close(
        reference.jaccard_gradient(torch.tensor(members, dtype=torch.bool)), torch.tensor(expected, dtype=torch.float64)
    )


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("ignore_index", [None, 1])
@pytest.mark.parametrize("classes", ["present", "all", (0, 2)])
def test_loss_is_the_choquet_integral_of_the_jaccard_loss(classes, ignore_index, per_image):
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((3, 4, 5, 6))
    target = generator.integers(0, 3, (3, 5, 6))
    options = {"classes": classes, "ignore_index": ignore_index, "per_image": per_image}
    loss = reference.lovasz_softmax(torch.from_numpy(logits), torch.from_numpy(target), **options)
    assert loss.item() == pytest.approx(choquet_lovasz_softmax(logits, target, **options), abs=1e-12)


def test_autograd_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (2, 3, 4), generator=generator)
    assert torch.autograd.gradcheck(lambda scores: reference.lovasz_softmax(scores, target), logits, eps=1e-7)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("classes", ["present", "all", (2, 0)])
def test_closed_form_gradient_is_that_of_autograd(classes, per_image):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 4, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (3, 5, 6), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.3] = 255
    target[1] = 255
    options = {"classes": classes, "per_image": per_image, "ignore_index": 255}
    expected = reference.lovasz_softmax(logits, target, **options)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    loss, gradient = reference.lovasz_softmax_with_gradient(logits.detach(), target, **options)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-14, rtol=1e-12)


def test_float64_is_kept_and_other_types_become_float32():
    target = torch.zeros(1, 2, 2, dtype=torch.int64)
    for given, computed in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
    ):
        assert reference.lovasz_softmax(torch.zeros(1, 2, 2, 2, dtype=given), target).dtype == computed


def test_check_target_passes_what_is_in_range():
    reference.check_target(torch.tensor([[[0, 1, 255]]]), num_classes=2, ignore_index=255)
    with pytest.raises(DataError, match=r"value 255 at \[image 0, row 0, column 2\]"):
        reference.check_target(torch.tensor([[[0, 1, 255]]]), num_classes=2, ignore_index=None)


def block_inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(4)
    shapes = ((2, 5, 4, 3), (3, 5), (3,), (5, 3), (5,))
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def test_weighted_block_is_two_convolutions_of_the_mean():
    x, w1, b1, w2, b2 = block_inputs()
    context = torch.nn.functional.adaptive_avg_pool2d(x, 1)
    hidden = torch.nn.functional.conv2d(context, w1[:, :, None, None], b1).clamp(min=0)
    scale = 1 / (1 + torch.exp(-torch.nn.functional.conv2d(hidden, w2[:, :, None, None], b2)))
    torch.testing.assert_close(reference.weighted_block(x, w1, b1, w2, b2), x * scale)


def test_weighted_block_autograd_agrees_with_finite_differences():
    assert torch.autograd.gradcheck(reference.weighted_block, [tensor.requires_grad_() for tensor in block_inputs()])


def test_weighted_block_closed_form_gradients_are_those_of_autograd():
    x, w1, b1, w2, b2 = block_inputs(torch.float32)
    leaves = [tensor.requires_grad_() for tensor in (x, w1, b1, w2, b2)]
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    out, state = reference.weighted_block_with_state(*(leaf.detach() for leaf in leaves))
    expected_out = reference.weighted_block(*leaves)
    expected = torch.autograd.grad(expected_out, leaves, gradient)
    torch.testing.assert_close(out, expected_out.detach())
    closed = reference.weighted_block_backward(gradient, x.detach(), state, w1.detach(), w2.detach())
    torch.testing.assert_close(closed, expected, atol=1e-5, rtol=1e-5)


def test_weighted_block_keeps_float64_and_the_type_of_the_map():
    parameters = block_inputs(torch.float32)[1:]
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert reference.weighted_block(torch.ones(1, 5, 2, 2, dtype=dtype), *parameters).dtype == dtype
