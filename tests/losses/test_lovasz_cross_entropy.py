from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from etnet.errors import DataError, UsageError
from etnet.losses import LovaszSoftmax
from etnet.losses.lovasz_cross_entropy import LovaszCrossEntropy


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 7, generator=generator)
    return logits.requires_grad_(), torch.randint(0, 3, (2, 6, 7), generator=generator, dtype=torch.uint8)


def entropy(logits: torch.Tensor, target: torch.Tensor, counted: np.ndarray) -> float:
    """Mean of -log p of the true class over the pixels that count, by SciPy."""
    logs = log_softmax(logits.detach().double().numpy(), axis=1)
    classes = np.where(counted, target.numpy(), 0)[:, np.newaxis].astype(np.int64)
    return float(-np.take_along_axis(logs, classes, axis=1)[:, 0][counted].mean())


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_loss_is_the_weighted_sum_of_both(batch, share):
    logits, target = batch
    expected = (1 - share) * LovaszSoftmax()(*batch).item() + share * entropy(
        logits, target, np.ones(target.shape, bool)
    )
    assert LovaszCrossEntropy(share)(*batch).item() == pytest.approx(expected, rel=1e-6)


def test_without_a_share_it_is_lovasz_softmax_to_the_bit(batch):
    logits, _ = batch
    mixed = LovaszCrossEntropy()(*batch)
    gradient = torch.autograd.grad(mixed, logits)[0]
    plain = LovaszSoftmax()(*batch)
    assert mixed.item() == plain.item()
    assert torch.equal(gradient, torch.autograd.grad(plain, logits)[0])


def test_ignored_pixels_count_in_neither_part(batch):
    logits, target = batch
    target[0, :4] = 255
    loss = LovaszCrossEntropy(0.5, ignore_index=255)(logits, target)
    lovasz = LovaszSoftmax(ignore_index=255)(logits, target).item()
    assert loss.item() == pytest.approx(0.5 * lovasz + 0.5 * entropy(logits, target, target.numpy() != 255), rel=1e-6)
    loss.backward()
    assert torch.count_nonzero(logits.grad[0, :, :4]) == 0
    assert torch.count_nonzero(logits.grad[0, :, 4:]) > 0


def test_a_batch_without_a_pixel_that_counts_has_no_loss_and_no_gradient(batch):
    logits, target = batch
    loss = LovaszCrossEntropy(0.5, ignore_index=255)(logits, torch.full_like(target, 255))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.count_nonzero(logits.grad) == 0


def test_a_pixel_that_is_wrong_and_sure_gets_a_gradient():
    """What the mix is for: Lovasz-Softmax alone hardly moves such a pixel."""
    gradients = []
    for share in (0.0, 0.5):
        logits = torch.zeros(1, 2, 2, 2)
        logits[0, 0] = 20.0
        logits.requires_grad_()
        LovaszCrossEntropy(share)(logits, torch.ones(1, 2, 2, dtype=torch.long)).backward()
        gradients.append(logits.grad.abs().max().item())
    assert gradients[0] < 1e-6
    assert gradients[1] == pytest.approx(0.5 / 4, rel=1e-3)


def test_half_precision_logits_are_computed_in_float32(batch):
    logits, target = batch
    loss = LovaszCrossEntropy(0.5)(logits.detach().bfloat16(), target)
    assert loss.dtype == torch.float32
    rounded = logits.detach().bfloat16().float()
    assert loss.item() == LovaszCrossEntropy(0.5)(rounded, target).item()


def test_a_target_that_is_no_class_is_named(batch):
    logits, target = batch
    target[0, 0, 0] = 7
    with pytest.raises(DataError, match="7"):
        LovaszCrossEntropy(0.5)(logits, target)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(UsageError, match=r"cross_entropy is .*; expected a share in 0\.\.1"):
        LovaszCrossEntropy(share)


def test_it_says_what_it_is():
    assert "share=0.5" in repr(LovaszCrossEntropy(0.5))
