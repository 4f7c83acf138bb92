from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import timm
import torch

from etnet.config.networks import NETWORKS
from etnet.errors import ModelFileError, UsageError
from etnet.models import ETNet, load_encoder_weights
from etnet.models.baselines.library import ARCHITECTURES, LibraryNetwork
from helpers.models import ModelTester, random_images


class LibraryTester(ModelTester):
    """The tests of every network for one of the library."""

    name: str
    has_edges = False

    @property
    def size_multiple(self) -> int:
        return NETWORKS[self.name].size_multiple

    def build(self):
        torch.manual_seed(0)
        return LibraryNetwork(self.name, 3, encoder="test_resnet")


class TestUnet(LibraryTester):
    name = "unet"


class TestUnetPlusPlus(LibraryTester):
    name = "unetplusplus"


class TestMAnet(LibraryTester):
    name = "manet"


class TestLinknet(LibraryTester):
    name = "linknet"


class TestFPN(LibraryTester):
    name = "fpn"


class TestPSPNet(LibraryTester):
    name = "pspnet"


class TestDeepLabV3Plus(LibraryTester):
    name = "deeplabv3plus"


def test_every_architecture_is_tested_and_offered():
    tested = {tester.name for tester in LibraryTester.__subclasses__()}
    assert tested == set(ARCHITECTURES) == {name for name, traits in NETWORKS.items() if traits.extra == "baselines"}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_logits_are_those_of_the_library(name):
    network = LibraryNetwork(name, 3, encoder="resnet18").eval()
    made = {"unet": smp.Unet, "deeplabv3plus": smp.DeepLabV3Plus}.get(name, ARCHITECTURES[name])
    plain = made("tu-resnet18", encoder_weights=None, classes=3).eval()
    plain.load_state_dict(network.body.state_dict())
    images = random_images(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(network(images).seg_logits, plain(images))


@pytest.mark.parametrize("encoder", ["mobilenetv2_100", "convnext_tiny"])
@pytest.mark.parametrize("name", ["unet", "deeplabv3plus"])
def test_encoders_of_other_families_segment(name, encoder):
    network = LibraryNetwork(name, 2, encoder=encoder).eval()
    with torch.no_grad():
        assert network(random_images(1, 3, 64, 96)).seg_logits.shape == (1, 2, 64, 96)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_encoder_weights_of_a_file_reach_the_backbone(name, tmp_path):
    torch.manual_seed(7)
    state = timm.create_model("resnet18").state_dict()
    torch.save(state, tmp_path / "w.pth")
    network = LibraryNetwork(name, 2, encoder="resnet18")
    report = load_encoder_weights(network, str(tmp_path / "w.pth"))
    inside = network.body.encoder.model.state_dict()
    assert report.missing == ()
    assert set(report.loaded) == set(inside)
    assert all(torch.equal(inside[key], state[key]) for key in inside)


def test_the_encoder_of_one_network_can_start_another(tmp_path):
    from safetensors.torch import save_file

    first, second, third = ETNet(2, encoder="resnet18"), LibraryNetwork("unet", 2, encoder="resnet18"), None
    save_file(first.state_dict(), tmp_path / "etnet.safetensors")
    load_encoder_weights(second, str(tmp_path / "etnet.safetensors"))
    save_file(second.state_dict(), tmp_path / "unet.safetensors")
    third = ETNet(3, encoder="resnet18")
    report = load_encoder_weights(third, str(tmp_path / "unet.safetensors"))
    assert report.missing == ()
    expected = first.encoder.features.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in third.encoder.features.state_dict().items())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_published_weights_are_asked_for_in_the_shape_of_the_backbone(name, monkeypatch):
    network = LibraryNetwork(name, 2, encoder="resnet18.tv_in1k")
    create, asked = timm.create_model, []

    def without_download(encoder, *, pretrained, **options):
        asked.append((encoder, pretrained))
        torch.manual_seed(3)
        return create(encoder, pretrained=False, **options)

    monkeypatch.setattr("etnet.models.weights._hub_answers", lambda: True)
    monkeypatch.setattr(timm, "create_model", without_download)
    report = load_encoder_weights(network, "imagenet")
    torch.manual_seed(3)
    expected = create("resnet18").state_dict()
    assert asked == [("resnet18.tv_in1k", True)]
    assert all(torch.equal(network.body.encoder.model.state_dict()[key], expected[key]) for key in report.loaded)


def test_weights_of_another_backbone_are_refused(tmp_path):
    torch.save(timm.create_model("resnet50").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ModelFileError, match=r"check model\.encoder"):
        load_encoder_weights(LibraryNetwork("unet", 2, encoder="resnet18"), str(tmp_path / "w.pth"))


def test_an_unknown_encoder_is_refused_with_a_near_one():
    with pytest.raises(UsageError, match=r"resnet19: timm .* has no model of this name; did you mean"):
        LibraryNetwork("unet", 2, encoder="resnet19")


@pytest.mark.parametrize("encoder", ["vit_tiny_patch16_224", "test_vit"])
def test_an_encoder_without_a_pyramid_is_one_sentence(encoder):
    with pytest.raises(UsageError, match=rf"model.encoder={encoder}: unet cannot read its feature maps") as caught:
        LibraryNetwork("unet", 2, encoder=encoder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_class_starts_with_about_the_same_probability(name):
    torch.manual_seed(0)
    network = LibraryNetwork(name, 4, encoder="resnet18")
    with torch.no_grad():
        probabilities = network(random_images(2, 3, 64, 64)).seg_logits.softmax(dim=1)
    assert (probabilities - 1 / 4).abs().mean() < 0.07
