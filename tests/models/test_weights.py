"""Starting weights: files in every form people have them, damaged files, and no network."""

from __future__ import annotations

import socket
import time

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from etnet.errors import EnvironmentFault, ModelFileError, UsageError
from etnet.models import ETNet, load_encoder_weights, weights


def network(encoder="resnet18"):
    return ETNet(2, encoder=encoder, decoder_channels=16, edge_channels=8)


def published(encoder="resnet18", seed=7):
    """State of a whole timm classifier: its names for ResNets are torchvision's."""
    torch.manual_seed(seed)
    return timm.create_model(encoder).state_dict()


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def wrap(state, form):
    if form == "nested":
        return {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    if form == "twice nested":
        return {"model": {"state_dict": {f"backbone.{name}": value for name, value in state.items()}}}
    return state


@pytest.mark.parametrize("form", ["plain", "nested", "twice nested", "safetensors"])
def test_every_form_of_a_torchvision_file_is_loaded_and_its_classifier_left_out(tmp_path, form):
    state = published()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    save_file(state, path) if form == "safetensors" else torch.save(wrap(state, form), path)
    model = network()
    report = load_encoder_weights(model, str(path))
    loaded = model.encoder.features.state_dict()
    assert set(report.loaded) == set(loaded)
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)
    assert report.missing == ()
    assert sorted(report.unexpected) == ["fc.bias", "fc.weight"]
    start = f"Encoder starts from {path}: 120 tensors loaded, none missing and left random, 2 not used (fc."
    assert report.summary().startswith(start)


@pytest.mark.parametrize("encoder", ["convnext_tiny", "mobilenetv2_100"])
def test_timm_files_of_other_families_fit(tmp_path, encoder):
    torch.save(published(encoder), tmp_path / "w.pth")
    report = load_encoder_weights(network(encoder), str(tmp_path / "w.pth"))
    assert report.missing == ()
    assert all(name.startswith(("head", "conv_head", "bn2", "classifier")) for name in report.unexpected)


def test_the_encoder_of_another_etnet_can_be_the_start(tmp_path):
    first, second = network(), network()
    save_file(first.state_dict(), tmp_path / "w.safetensors")
    load_encoder_weights(second, str(tmp_path / "w.safetensors"))
    features = second.encoder.features.state_dict()
    assert all(torch.equal(value, features[name]) for name, value in first.encoder.features.state_dict().items())


def test_old_files_without_batch_counters_are_complete(tmp_path):
    state = {name: value for name, value in published().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pth")
    report = load_encoder_weights(network(), str(tmp_path / "w.pth"))
    assert report.missing == ()
    assert len(report.loaded) == 100


def test_missing_tensors_stay_random_and_are_named(tmp_path):
    state = published()
    del state["layer4.1.conv2.weight"], state["conv1.weight"]
    torch.save(state, tmp_path / "w.pth")
    model = network()
    before = model.encoder.features.conv1.weight.clone()
    report = load_encoder_weights(model, str(tmp_path / "w.pth"))
    assert report.missing == ("conv1.weight", "layer4.1.conv2.weight")
    assert torch.equal(model.encoder.features.conv1.weight, before)
    assert "2 missing and left random (conv1.weight, layer4.1.conv2.weight)" in report.summary()


def test_half_precision_files_become_float32(tmp_path):
    torch.save(
        {name: value.half() if value.is_floating_point() else value for name, value in published().items()},
        tmp_path / "w.pth",
    )
    model = network()
    load_encoder_weights(model, str(tmp_path / "w.pth"))
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_none_keeps_the_random_start():
    model = network()
    before = snapshot(model)
    report = load_encoder_weights(model, "none")
    assert report.summary() == "Encoder starts from random weights."
    assert same(model, before)


class Opaque:
    """Something that only unpickling code could bring back."""


def holed(state):
    state["layer1.0.conv1.weight"][0, 0] = torch.nan
    return state


SAVED = {
    "code": lambda state: {"state_dict": state, "settings": Opaque()},
    "numpy scalar": lambda state: {"state_dict": state, "best": np.float64(0.5)},
    "list": lambda state: list(state.values()),
    "no tensors": lambda state: dict.fromkeys(state, 1),
    "not finite": holed,
    "one channel": lambda state: {**state, "conv1.weight": torch.zeros(64, 1, 7, 7)},
    "truncated": lambda state: state,
}


def write_damaged(path, kind):
    if kind in SAVED:
        torch.save(SAVED[kind](published()), path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:100_000])
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("root:x:0:0\n" * 40)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such weights file"),
        ("empty", "cannot be read"),
        ("text", "cannot be read"),
        ("truncated", "cannot be read"),
        ("code", "Python objects besides tensors"),
        ("numpy scalar", "Python objects besides tensors"),
        ("list", "holds a list; expected a state_dict"),
        ("no tensors", "holds 0 of the 100 tensors"),
        ("not finite", "layer1.0.conv1.weight holds values that are not finite"),
        ("one channel", r"conv1.weight has shape \[64, 1, 7, 7\].*needs \[64, 3, 7, 7\]"),
    ],
)
def test_a_bad_file_is_one_sentence_and_changes_nothing(tmp_path, kind, words):
    path = tmp_path / "weights.pth"
    write_damaged(path, kind)
    model = network()
    before = snapshot(model)
    with pytest.raises(ModelFileError, match=words) as caught:
        load_encoder_weights(model, str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert same(model, before)


def test_a_damaged_safetensors_file_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 no header at all")
    with pytest.raises(ModelFileError, match=r"w\.safetensors: cannot be read"):
        load_encoder_weights(network(), str(path))


@pytest.mark.parametrize(
    ("other", "words"), [("mobilenetv2_100", "holds . of the 100|at least half"), ("resnet50", "shape")]
)
def test_weights_of_another_network_are_refused(tmp_path, other, words):
    torch.save(published(other), tmp_path / "w.pth")
    with pytest.raises(ModelFileError, match=words) as caught:
        load_encoder_weights(network(), str(tmp_path / "w.pth"))
    assert "check model.encoder" in str(caught.value).lower()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Where the hub is for this test, with an empty cache: first an address of this machine where nothing listens."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return constants


def refuse_imagenet(model):
    """The error of `imagenet`, after checking that it came soon and changed nothing."""
    before = snapshot(model)
    started = time.monotonic()
    with pytest.raises(EnvironmentFault, match=r"--set model\.encoder_weights=none.*encoder_weights=FILE") as caught:
        load_encoder_weights(model, "imagenet")
    assert time.monotonic() - started < 10
    assert same(model, before)
    return str(caught.value)


def test_imagenet_without_a_network_names_the_other_choices(hub):
    assert "resnet18.a1_in1k" in refuse_imagenet(network())


def test_a_hub_that_accepts_but_never_answers_is_given_up(hub, monkeypatch):
    monkeypatch.setattr(weights, "HUB_PATIENCE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        refuse_imagenet(network())


def test_a_download_that_breaks_off_is_the_same_error_with_its_cause(hub, monkeypatch):
    model = network()
    monkeypatch.setattr(weights, "_hub_answers", lambda: True)

    def break_off(*_, **__):
        raise ConnectionResetError("peer went away")

    monkeypatch.setattr(timm, "create_model", break_off)
    assert "ConnectionResetError: peer went away" in refuse_imagenet(model)


def test_cached_imagenet_weights_need_no_network(hub, monkeypatch, tmp_path):
    model, donor = network("resnet18.tv_in1k"), network()
    snapshots = tmp_path / "cache" / "models--timm--resnet18.tv_in1k"
    (snapshots / "refs").mkdir(parents=True)
    (snapshots / "refs" / "main").write_text("0" * 40)
    (snapshots / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (snapshots / "snapshots" / ("0" * 40) / "model.safetensors").touch()
    asked = []

    def from_cache(name, *, pretrained, **_):
        asked.append((name, pretrained))
        return donor.encoder.features

    monkeypatch.setattr(timm, "create_model", from_cache)
    report = load_encoder_weights(model, "imagenet")
    assert asked == [("resnet18.tv_in1k", True)]
    assert report.summary().startswith("Encoder starts from timm resnet18.tv_in1k: 120 tensors loaded")
    assert torch.equal(model.encoder.features.conv1.weight, donor.encoder.features.conv1.weight)


def test_weights_made_for_another_normalisation_say_so(hub, monkeypatch):
    model = network()
    donor = network().encoder.features
    monkeypatch.setattr(weights, "_hub_answers", lambda: True)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: donor)
    inception = timm.get_pretrained_cfg("inception_v3.tf_in1k")
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: inception)
    assert "(0.5, 0.5, 0.5)" in load_encoder_weights(model, "imagenet").summary().splitlines()[1]


def test_imagenet_for_an_encoder_without_published_weights_is_a_usage_error():
    with pytest.raises(UsageError, match="timm has no published weights for seresnet18"):
        load_encoder_weights(network("seresnet18"), "imagenet")
