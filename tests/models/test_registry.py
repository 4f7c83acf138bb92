from __future__ import annotations

import copy
import importlib.util
import json

import pytest
import torch
from safetensors.torch import load_file

from etnet.config.networks import NETWORKS
from etnet.config.schema import ModelSection
from etnet.errors import EnvironmentFault, ModelFileError, UsageError
from etnet.manifest import METADATA_KEY, encode_header, read_weights_info
from etnet.models import MODELS, build_model, load_encoder_weights
from etnet.models.weights import load_network
from etnet.training.checkpoint import save_weights
from helpers.models import random_images, tensors_of
from helpers.weights import small_recipe, write_untrained


def recipe_of(name: str, **model):
    recipe = small_recipe()
    section = {**recipe.model.model_dump(), "name": name, **model}
    return recipe.model_copy(update={"model": ModelSection.model_validate(section)})


@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_of_the_recipe_is_built_as_its_traits_say(name):
    network = build_model(recipe_of(name).model, 4)
    traits = NETWORKS[name]
    assert network.num_classes == 4
    assert network.size_multiple == traits.size_multiple == recipe_of(name).contract().size_multiple
    assert (network.encoder is not None) == traits.has_encoder
    assert network.training
    assert traits.smallest_batch == smallest_batch(network)


def smallest_batch(network) -> int:
    """By trial: batch normalisation refuses a map of one pixel and one image."""
    try:
        network(torch.zeros(1, 3, 64, 64))
    except ValueError:
        return 2
    return 1


def test_the_registry_offers_what_recipes_accept():
    assert list(MODELS) == list(NETWORKS)
    assert {name: entry.extra for name, entry in MODELS.items()} == {
        name: traits.extra for name, traits in NETWORKS.items()
    }
    assert all(entry.description for entry in MODELS.values())


BEYOND_THE_PAPER = {"high_resolution": True}


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in NETWORKS), ("etnet", BEYOND_THE_PAPER)])
def test_a_weights_file_brings_its_network_back(name, options, tmp_path):
    recipe = recipe_of(name, **options)
    torch.manual_seed(1)
    expected = build_model(recipe.model, 3).eval()
    path = write_untrained(tmp_path / "w.safetensors", recipe, seed=1)
    network = load_network(path)
    assert not network.training
    images = random_images(1, 3, 64, 64)
    with torch.no_grad():
        pairs = zip(tensors_of(network(images)), tensors_of(expected(images)), strict=True)
        assert all(torch.equal(got, want) for got, want in pairs)


def test_a_file_of_before_the_options_beyond_the_paper_is_the_papers_network(tmp_path):
    recipe = recipe_of("etnet")
    header = encode_header(recipe=recipe, iteration=1, epoch=1, data_root="data")
    content = json.loads(header[METADATA_KEY])
    for section, keys in {
        "model": ("high_resolution",),
        "loss": ("cross_entropy",),
    }.items():
        for key in keys:
            del content["recipe"][section][key]
    torch.manual_seed(1)
    expected = build_model(recipe.model, 3).eval()
    path = tmp_path / "old.safetensors"
    save_weights(path, expected.state_dict(), {METADATA_KEY: json.dumps(content)})
    assert read_weights_info(path).recipe == recipe
    network, images = load_network(path), random_images(1, 3, 64, 64)
    with torch.no_grad():
        pairs = zip(tensors_of(network(images)), tensors_of(expected(images)), strict=True)
        assert all(torch.equal(got, want) for got, want in pairs)


def test_weights_of_one_network_are_refused_by_another(tmp_path):
    fcn = write_untrained(tmp_path / "fcn.safetensors", recipe_of("fcn"))
    header = encode_header(recipe=recipe_of("mnet"), iteration=1, epoch=1, data_root="data")
    save_weights(tmp_path / "mnet.safetensors", load_file(fcn), header)
    with pytest.raises(ModelFileError, match="do not fit the network of its recipe"):
        load_network(tmp_path / "mnet.safetensors")


def test_a_missing_package_is_named_with_its_installation(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "segmentation_models_pytorch" else find(name)
    )
    with pytest.raises(EnvironmentFault, match=r"model\.name=unet needs .* pip install 'etnet\[baselines\]'"):
        build_model(recipe_of("unet").model, 2)
    build_model(recipe_of("mnet").model, 2)


def test_a_name_that_no_recipe_checked_is_refused_too():
    section = ModelSection.model_construct(name="unett")
    with pytest.raises(UsageError, match=r"model\.name is 'unett'; .*did you mean unet\?"):
        build_model(section, 2)


@pytest.mark.parametrize("source", ["none", "imagenet", "weights.pth"])
def test_encoder_weights_for_a_network_without_encoder_change_nothing_and_say_so(source):
    network = build_model(recipe_of("mnet").model, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert "has no encoder" in load_encoder_weights(network, source).summary()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_polar_reaches_mnet():
    assert build_model(recipe_of("mnet", polar=True).model, 2).polar
    assert not build_model(recipe_of("mnet").model, 2).polar


@pytest.mark.parametrize("name", NETWORKS)
def test_a_copy_has_a_backbone_of_its_own(name):
    network = build_model(recipe_of(name).model, 2)
    duplicate = copy.deepcopy(network)
    if network.encoder is None:
        assert duplicate.encoder is None
        return
    inside = {id(value) for value in duplicate.parameters()}
    assert {id(value) for value in duplicate.encoder.features.parameters()} <= inside
    assert {id(value) for value in network.encoder.features.parameters()}.isdisjoint(inside)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_tensor_is_stored_twice(name):
    state = build_model(recipe_of(name).model, 2).state_dict()
    addresses = [value.data_ptr() for value in state.values() if value.numel()]
    assert len(addresses) == len(set(addresses))
