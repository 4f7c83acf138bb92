"""Encoders of timm: strides, channels, dilation, and names that do not fit."""

from __future__ import annotations

import pytest
import torch

from etnet.errors import UsageError
from etnet.models import Encoder, encoder
from helpers.models import random_images

CHANNELS = {
    "resnet18": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "mobilenetv2_100": (24, 32, 96, 320),
    "convnext_tiny": (96, 192, 384, 768),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_the_four_stages_have_strides_4_8_16_16(name):
    network = Encoder(name).eval()
    with torch.no_grad():
        stages = network(random_images(1, 3, 64, 96))
    assert network.channels == CHANNELS[name]
    assert [tuple(stage.shape[1:]) for stage in stages] == [
        (channels, 64 // stride, 96 // stride) for channels, stride in zip(CHANNELS[name], (4, 8, 16, 16), strict=True)
    ]


def test_the_last_stage_of_resnet_is_dilated_as_in_the_paper():
    last = Encoder("resnet50").features.layer4
    assert {convolution.stride for convolution in last.modules() if isinstance(convolution, torch.nn.Conv2d)} == {
        (1, 1)
    }
    assert last[1].conv2.dilation == (2, 2)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("resnet5O", "resnet50"), ("mobilnetv2_100", "mobilenetv2_100"), ("resnet50.tv_in2k", "resnet50.tv_in1k")],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(UsageError, match=f"model.encoder={name}.*did you mean.*{nearest}"):
        Encoder(name)


def test_a_name_like_no_other_is_answered_with_the_encoder_of_the_paper():
    with pytest.raises(UsageError, match="resnet50 is the paper's encoder"):
        Encoder("?????")


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "swin_tiny_patch4_window7_224", "vgg16"])
def test_a_backbone_without_these_stages_is_refused_and_others_are_named(name):
    with pytest.raises(UsageError, match=rf"model.encoder={name}: .*\[4, 8, 16, 16\].*resnet50"):
        Encoder(name)


def test_strides_other_than_the_papers_are_named(monkeypatch):
    monkeypatch.setitem(encoder.BACKBONE_OPTIONS, "output_stride", 32)
    with pytest.raises(UsageError, match=r"strides \[4, 8, 16, 32\]"):
        Encoder("resnet18")


def test_a_name_from_another_place_is_not_downloaded():
    with pytest.raises(UsageError, match="has no model of this name"):
        Encoder("hf-hub:timm/resnet18.a1_in1k")


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 64), ("resnet50", 64), ("mobilenetv2_100", 16)])
def test_with_a_stem_a_map_of_stride_2_comes_first(name, channels):
    network = Encoder(name, with_stem=True).eval()
    with torch.no_grad():
        stem, *stages = network(random_images(1, 3, 64, 96))
    assert network.channels == (channels, *CHANNELS[name])
    assert tuple(stem.shape) == (1, channels, 32, 48)
    assert [stage.shape[2] for stage in stages] == [16, 8, 4, 4]


def test_with_a_stem_the_stages_and_the_tensors_are_the_same():
    torch.manual_seed(0)
    plain = Encoder("resnet18").eval()
    finer = Encoder("resnet18", with_stem=True).eval()
    finer.load_state_dict(plain.state_dict())
    images = random_images(1, 3, 64, 96)
    with torch.no_grad():
        for expected, found in zip(plain(images), finer(images)[1:], strict=True):
            torch.testing.assert_close(found, expected)


def test_an_encoder_without_a_stem_of_stride_2_is_refused_for_high_resolution():
    with pytest.raises(UsageError, match=r"high_resolution=true: the encoder convnext_tiny has no map .*resnet50"):
        Encoder("convnext_tiny", with_stem=True)


def test_an_encoder_that_does_not_fit_at_all_is_not_blamed_on_the_stem():
    with pytest.raises(UsageError, match=r"model.encoder=vgg16: expected a backbone"):
        Encoder("vgg16", with_stem=True)
