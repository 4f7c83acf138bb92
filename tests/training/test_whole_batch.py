from __future__ import annotations

import pytest
import torch

from etnet.training.whole_batch import is_mean_over_images
from helpers.runs import tiny_recipe
from helpers.two_processes import LOSSES, loss_of


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_two_processes_is_that_of_the_whole_batch(two_processes, name):
    expected = loss_of(None, **LOSSES[name])
    first, second = (results[f"loss/{name}"] for results in two_processes)
    assert torch.equal(first["terms"], second["terms"])
    torch.testing.assert_close(first["terms"], expected["terms"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_over_processes_of_the_gradients_is_the_gradient_of_the_batch(two_processes, name):
    expected = loss_of(None, **LOSSES[name])
    first, second = (results[f"loss/{name}"] for results in two_processes)
    for index in range(3):
        # Each process has the gradient of its own samples, doubled; DistributedDataParallel halves the sum.
        gradient = torch.cat([first[f"grad{index}"], second[f"grad{index}"]]) / 2
        torch.testing.assert_close(gradient, expected[f"grad{index}"], rtol=1e-5, atol=1e-7)


def test_a_mean_over_images_needs_no_exchange():
    assert is_mean_over_images(tiny_recipe("loss.per_image=true"))
    assert not is_mean_over_images(tiny_recipe("loss.per_image=true", "data.ignore_index=255"))
    assert not is_mean_over_images(tiny_recipe("loss.per_image=false"))
