"""One training step, and for some a whole run, of every network that a recipe can name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from etnet.config.networks import NETWORKS
from etnet.config.schema import Recipe
from etnet.data.datasets import open_dataset
from etnet.data.io import read_image
from etnet.data.loader import Batch, build_training_loader
from etnet.inference.predictor import Predictor
from etnet.losses import EdgeSupervisedLoss, LovaszSoftmax
from etnet.manifest import read_weights_info
from etnet.models import build_model
from etnet.training.distributed import ProcessGroup
from etnet.training.step import Stepper
from helpers.models import open_residual_branches, remove_dropout
from helpers.runs import tiny_recipe, tiny_run, write_disc_folder

SETTINGS = [(name, False) for name in NETWORKS] + [("mnet", True)]
BEYOND_THE_PAPER = ("model.high_resolution=true", "loss.cross_entropy=0.25")
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)


def recipe_of(name: str, *overrides: str, polar: bool = False) -> Recipe:
    region = ("data.roi={side: 1.0, size: 64}", "model.polar=true") if polar else ()
    return tiny_recipe(f"model.name={name}", "data.crop_size=64", *region, *overrides)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    discs = write_disc_folder(tmp_path_factory.mktemp("data") / "discs")
    recipe = recipe_of("etnet")
    dataset = open_dataset(recipe.data, discs, "train")
    return next(iter(build_training_loader(dataset, recipe, start_iteration=0, total_iterations=1, workers=0)))


def network_of(recipe: Recipe) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_model(recipe.model, 2)
    remove_dropout(network)
    open_residual_branches(network)
    return network


def step(recipe: Recipe, batch: Batch, network: torch.nn.Module):
    stepper = Stepper(
        network.to(memory_format=torch.channels_last),
        recipe=recipe,
        optimizer=torch.optim.SGD(network.parameters()),
        device=torch.device("cpu"),
        group=ProcessGroup(),
    )
    return stepper.run(batch, 1.0)


def expected_loss(recipe: Recipe, batch: Batch) -> float:
    """By the definition of the loss, without the package's step."""
    output = network_of(recipe)((batch.images - MEAN) / STD)
    parts = [output.seg_logits, *output.side_logits]
    regions = sum(LovaszSoftmax()(logits, batch.masks) for logits in parts) / len(parts)
    if output.edge_logits is None:
        return float(regions.detach())
    return float((0.3 * regions + 0.7 * LovaszSoftmax()(output.edge_logits, batch.edges)).detach())


@pytest.mark.parametrize(("name", "polar"), SETTINGS)
def test_a_step_minimises_the_loss_of_the_recipe_and_moves_every_weight(name: str, polar: bool, batch: Batch) -> None:
    recipe = recipe_of(name, polar=polar)
    network = network_of(recipe)
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    result = step(recipe, batch, network)
    assert result.loss == pytest.approx(expected_loss(recipe, batch), rel=1e-4)
    assert result.gradient_norm > 0
    # The bias of a convolution before a batch normalisation has no effect, and no gradient beyond rounding.
    weights = {key: value for key, value in network.named_parameters() if key.endswith("weight")}
    assert [key for key, value in weights.items() if torch.equal(value, before[key])] == []


@pytest.mark.parametrize(("name", "polar"), SETTINGS)
def test_a_step_in_bfloat16_has_nearly_the_loss_of_float32(name: str, polar: bool, batch: Batch) -> None:
    recipe = recipe_of(name, "training.precision=bfloat16", polar=polar)
    network = network_of(recipe)
    result = step(recipe, batch, network)
    assert result.loss == pytest.approx(expected_loss(recipe, batch), abs=0.02)
    assert all(value.isfinite().all() and value.dtype == torch.float32 for value in network.parameters())


@pytest.mark.parametrize("name", ["fcn", "mnet", "multi_task", "unet", "deeplabv3plus"])
def test_a_run_trains_validates_and_its_weights_predict(name: str, tmp_path) -> None:
    discs = write_disc_folder(tmp_path / "discs")
    result = tiny_run(recipe_of(name), discs, tmp_path / "run")
    assert result.iterations == result.total
    assert 0 <= result.best_score <= 1
    first = sorted((discs / "images").iterdir())[0]
    with Predictor.load(tmp_path / "run/weights/best.safetensors", device="cpu") as predictor:
        prediction = predictor.predict(read_image(first))
    assert prediction.labels.shape == (48, 48)
    assert set(np.unique(prediction.labels)) <= {0, 1}
    assert (prediction.edges is not None) == (name == "multi_task")


def test_all_outputs_of_a_network_are_in_the_loss(batch: Batch) -> None:
    """M-Net's side outputs are trained too: without them the loss is another."""
    recipe = recipe_of("mnet")
    output = network_of(recipe)((batch.images - MEAN) / STD)
    alone = EdgeSupervisedLoss()(output._replace(side_logits=()), batch.masks, batch.edges).total
    assert abs(step(recipe, batch, network_of(recipe)).loss - float(alone.detach())) > 1e-3


def test_a_step_beyond_the_paper_minimises_the_loss_of_the_recipe_and_moves_every_weight(batch: Batch) -> None:
    recipe = recipe_of("etnet", *BEYOND_THE_PAPER)
    output = network_of(recipe)((batch.images - MEAN) / STD)

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        entropy = torch.nn.functional.cross_entropy(logits, target.long())
        return 0.75 * LovaszSoftmax()(logits, target) + 0.25 * entropy

    expected = 0.3 * loss(output.seg_logits, batch.masks) + 0.7 * loss(output.edge_logits, batch.edges)
    network = network_of(recipe)
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    result = step(recipe, batch, network)
    assert result.loss == pytest.approx(expected.item(), rel=1e-4)
    weights = {key: value for key, value in network.named_parameters() if key.endswith("weight")}
    assert [key for key, value in weights.items() if torch.equal(value, before[key])] == []


def test_a_run_beyond_the_paper_trains_resumes_and_its_weights_predict(tmp_path) -> None:
    discs = write_disc_folder(tmp_path / "discs")
    recipe = recipe_of("etnet", *BEYOND_THE_PAPER)
    result = tiny_run(recipe, discs, tmp_path / "run")
    assert result.iterations == result.total == 12
    weights = tmp_path / "run/weights/best.safetensors"
    assert read_weights_info(weights).recipe == recipe
    first = sorted((discs / "images").iterdir())[0]
    with Predictor.load(weights, device="cpu") as predictor:
        prediction = predictor.predict(read_image(first))
    assert prediction.labels.shape == (48, 48)
    assert prediction.edges is not None
