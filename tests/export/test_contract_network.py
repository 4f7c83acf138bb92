from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from etnet.export.contract_network import ContractNetwork, fold_batch_norms
from etnet.export.onnx import export_onnx
from etnet.inference.backends import NOT_FINITE
from etnet.inference.backends.torch_backend import TorchBackend
from etnet.inference.predictor import Predictor
from etnet.manifest import encode_header
from etnet.models import build_model
from etnet.models.weights import load_network
from etnet.training.checkpoint import save_weights
from helpers.backends import photographs
from helpers.weights import small_recipe, write_confident


def recipe_of(classes: int, **model):
    recipe = small_recipe(class_names=["background", "vessel", "disc", "cup"][:classes])
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=model)})


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("use_egm", [True, False])
def test_the_outputs_are_those_of_the_torch_backend(tmp_path, classes, use_egm):
    recipe = recipe_of(classes, use_egm=use_egm)
    network = load_network(write_confident(tmp_path / "best.safetensors", recipe))
    images = photographs(2, 32, 48)
    expected = TorchBackend(network, recipe.contract(), device="cpu").run(images)
    deployed = ContractNetwork(network, recipe.contract()).eval()
    with torch.no_grad():
        outputs = dict(zip(deployed.output_names, deployed(torch.from_numpy(images)), strict=True))
    assert ("edges" in outputs) == use_egm
    np.testing.assert_array_equal(outputs["labels"], expected.labels)
    np.testing.assert_allclose(outputs["probabilities"], expected.probabilities, atol=1e-5)
    if use_egm:
        # 255 p may fall on either side of a half.
        np.testing.assert_allclose(outputs["edges"], expected.edges, atol=1)
    assert {name: value.dtype for name, value in outputs.items() if name != "probabilities"} == dict.fromkeys(
        set(outputs) - {"probabilities"}, torch.uint8
    )


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("head", ["regions", "edges"])
@pytest.mark.parametrize("classes", [2, 3])
def test_logits_that_are_not_finite_are_marked_in_the_file_and_by_torch(tmp_path, classes, head, value):
    recipe = recipe_of(classes)
    network = build_model(recipe.model, classes).eval()
    with torch.no_grad():
        (network.classifier if head == "regions" else network.edge_guidance.classifier).bias[1] = value
    weights, exported = tmp_path / "best.safetensors", tmp_path / "model.onnx"
    save_weights(weights, network.state_dict(), encode_header(recipe=recipe, iteration=1, epoch=1, data_root="data"))
    export_onnx(weights, exported, size=(32, 32))
    for model in (weights, exported):
        with Predictor.load(model, device="cpu") as predictor:
            assert np.all(predictor.backend.run(photographs(1, 32, 32)).labels == NOT_FINITE)


def test_a_tie_goes_to_the_first_class_as_argmax_does():
    for classes in (2, 3):
        network = build_model(recipe_of(classes).model, classes).eval()
        with torch.no_grad():
            network.classifier.weight.zero_()
            labels = ContractNetwork(network, recipe_of(classes).contract())(torch.zeros(1, 32, 32, 3).byte())[0]
        assert torch.all(labels == 0)


def test_a_half_network_still_normalises_and_decides_in_float32(tmp_path):
    recipe = recipe_of(3)
    network = load_network(write_confident(tmp_path / "best.safetensors", recipe)).half()
    deployed = ContractNetwork(network, recipe.contract())
    seen: dict[str, torch.dtype] = {}
    network.register_forward_pre_hook(lambda _, inputs: seen.update(network=inputs[0].dtype))
    with torch.no_grad():
        probabilities = deployed(torch.from_numpy(photographs(1, 32, 32)))[2]
    assert deployed.mean.dtype == torch.float32
    assert seen == {"network": torch.float16}
    assert probabilities.dtype == torch.float32
    # Half precision would round these sums to steps of 0.001.
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, 32, 32), atol=1e-6, rtol=0)


@pytest.mark.parametrize("encoder", ["test_resnet", "test_efficientnet"])
def test_folding_changes_no_result_and_leaves_no_normalisation(tmp_path, encoder):
    network = load_network(write_confident(tmp_path / "best.safetensors", recipe_of(3, encoder=encoder)))
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(image)
        fold_batch_norms(network, torch.zeros(1, 3, 64, 64))
        folded = network(image)
    for got, want in zip(folded, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def test_a_small_variance_survives_in_half_precision(tmp_path):
    """1e-6 is below what half precision can square and add to: folding has to come before halving."""
    recipe = recipe_of(2)
    network = load_network(write_confident(tmp_path / "best.safetensors", recipe))
    norm = next(layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    with torch.no_grad():
        norm.running_var.fill_(1e-6)
        norm.running_mean.zero_()
        image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        expected = network(image).seg_logits
        fold_batch_norms(network, torch.zeros(1, 3, 64, 64))
        half = network.half()(image.half()).seg_logits.float()
    assert (half - expected).abs().mean() < 0.05 * expected.abs().mean()
