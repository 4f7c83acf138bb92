"""Training with the native loss follows training with the plain torch loss.

A difference of one rounding grows with every step: Adam at its usual rate turns 1e-7 into 1e-4 within three steps, with
any two exact implementations. Curves are therefore compared under gentle gradient descent, and the losses of a run with
Adam step by step on the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from etnet.data.datasets import open_dataset
from etnet.data.loader import Batch, build_training_loader
from etnet.losses import EdgeSupervisedLoss
from etnet.models import ETNet
from etnet.training.distributed import ProcessGroup
from etnet.training.step import Stepper
from helpers.runs import tiny_recipe, write_disc_folder

STEPS = 50
GENTLE = 0.01
BIN_BOUND = 1 / (2 * (4096 - 1)) + 1e-6
"""Of each of the two terms, and hence of their weighted mean; the addition is float32 rounding."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> list[Batch]:
    discs: Path = write_disc_folder(tmp_path_factory.mktemp("data") / "discs")
    recipe = tiny_recipe()
    dataset = open_dataset(recipe.data, discs, "train")
    return list(build_training_loader(dataset, recipe, start_iteration=0, total_iterations=STEPS, workers=0))


def train(batches: list[Batch], method: str, optimizer: type[torch.optim.Optimizer], rate: float) -> np.ndarray:
    """Loss of every step of a seeded training."""
    torch.manual_seed(0)
    network = ETNet(2, encoder="test_resnet", decoder_channels=16, edge_channels=8)
    stepper = Stepper(
        network.to(memory_format=torch.channels_last).train(),
        recipe=tiny_recipe(f"loss.method={method}"),
        optimizer=optimizer(network.parameters(), lr=rate),
        device=torch.device("cpu"),
        group=ProcessGroup(),
    )
    return np.array([stepper.run(batch, rate).loss for batch in batches[:STEPS]])


@pytest.fixture(scope="module")
def gentle_curve(batches: list[Batch]) -> np.ndarray:
    curve = train(batches, "reference", torch.optim.SGD, GENTLE)
    untrained = train(batches, "reference", torch.optim.SGD, 0.0)
    assert untrained[-10:].mean() - curve[-10:].mean() > 1e-3, "the training has to move the loss by what can be seen"
    return curve


@pytest.mark.parametrize(("method", "tolerance"), [("auto", 1e-5), ("sort", 1e-5), ("histogram", 1e-4)])
def test_fifty_steps_give_the_loss_curve_of_the_twin(batches, gentle_curve, method, tolerance):
    curve = train(batches, method, torch.optim.SGD, GENTLE)
    assert len(curve) == len(gentle_curve) == STEPS
    np.testing.assert_allclose(curve, gentle_curve, atol=tolerance, rtol=0)


def test_every_step_of_a_training_with_adam_has_the_loss_of_the_twin(batches, monkeypatch):
    forward = EdgeSupervisedLoss.forward
    losses: dict[str, list[float]] = {"reference": [], "sort": [], "histogram": []}

    def forward_by_all(self, output, masks, edges):
        for method, values in losses.items():
            terms = forward(EdgeSupervisedLoss(alpha=self.alpha, ignore_index=255, method=method), output, masks, edges)
            values.append(terms.total.item())
        return forward(self, output, masks, edges)

    monkeypatch.setattr(EdgeSupervisedLoss, "forward", forward_by_all)
    curve = train(batches, "auto", torch.optim.Adam, 0.005)
    assert curve[-10:].mean() < curve[:10].mean() - 0.05
    np.testing.assert_allclose(losses["sort"], losses["reference"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(losses["histogram"], losses["reference"], atol=BIN_BOUND, rtol=0)
    np.testing.assert_array_equal(losses["sort"], np.float32(curve))
