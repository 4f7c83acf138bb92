"""ET-Net as a whole: the tests of every network, the rows of Table 3, encoders, counts."""

from __future__ import annotations

import pytest
import torch

from etnet.config.schema import ModelSection
from etnet.models import ETNet, build_model
from helpers.models import ModelTester, random_images, tensors_of

SMALL = {"decoder_channels": 32, "edge_channels": 16}


class TestETNet(ModelTester):
    def build(self):
        torch.manual_seed(0)
        return ETNet(3, encoder="resnet18", **SMALL)


class TestETNetWithMobileNet(ModelTester):
    num_classes = 2
    has_edges = False

    def build(self):
        torch.manual_seed(0)
        return ETNet(2, encoder="mobilenetv2_100", use_egm=False, **SMALL)


class TestETNetBeyondThePaper(ModelTester):
    def build(self):
        torch.manual_seed(0)
        return ETNet(3, encoder="resnet18", high_resolution=True, **SMALL)


def count(module):
    return sum(value.numel() for value in module.parameters())


def unit(inputs, outputs, *, side=1, groups=1):
    """Parameters of a convolution without bias and its normalisation."""
    return inputs // groups * outputs * side * side + 2 * outputs


@pytest.mark.parametrize("encoder", ["resnet50", "convnext_tiny"])
def test_encoders_of_other_families_segment(encoder):
    network = ETNet(2, encoder=encoder, **SMALL).eval()
    with torch.no_grad():
        output = network(random_images(1, 3, 64, 96))
    assert [tuple(logits.shape) for logits in tensors_of(output)] == [(1, 2, 64, 96)] * 2


@pytest.mark.parametrize("use_egm", [False, True])
@pytest.mark.parametrize("use_wam", [False, True])
def test_the_rows_of_table_3_have_the_parts_they_name(use_egm, use_wam):
    network = ETNet(2, encoder="resnet18", use_egm=use_egm, use_wam=use_wam, **SMALL)
    names = [name for name, _ in network.named_parameters()]
    assert any(name.startswith("edge_guidance.") for name in names) == use_egm
    assert any("weighted_blocks" in name for name in names) == use_wam
    open_channels = 32 + (16 if use_egm else 0)
    assert network.weighted_aggregation.fuse[0].in_channels == open_channels
    output = network(random_images(2, 3, 64, 64))
    assert (output.edge_logits is not None) == use_egm
    output.seg_logits.square().mean().backward()
    without_gradient = {name.split(".")[0] for name, value in network.named_parameters() if value.grad is None}
    assert without_gradient == ({"edge_guidance"} if use_egm else set()), "only the edge classifier is left out"


def test_the_decoder_of_the_paper_has_as_many_parameters_as_counted_by_hand():
    network = ETNet(3, encoder="resnet50", decoder_channels=256, edge_channels=64)
    decoding = unit(256, 256, side=3, groups=256) + unit(256, 256)
    blocks = (unit(2048, 256) + unit(1024, 256)) + unit(512, 256) + 0 + 3 * decoding
    edges = unit(256, 64) + unit(512, 64) + 2 * unit(64, 64, side=3) + unit(128, 64) + (128 * 2 + 2)
    weighing = 3 * ((256 * 16 + 16) + (16 * 256 + 256))
    fusing = unit(256 + 64, 256) + (256 * 3 + 3)
    assert count(network) - count(network.encoder) == blocks + edges + weighing + fusing
    # torchvision gives 25,557,032 for ResNet-50, of which 2,049,000 are the ImageNet classifier.
    assert count(network.encoder) == 25_557_032 - 2_049_000


def test_edge_guidance_adds_little_to_the_parameters():
    # Paper Sec. 3.1: "with only a small addition to the computational cost".
    assert count(ETNet(2)) < 1.02 * count(ETNet(2, use_egm=False))


def test_every_class_starts_with_about_the_same_probability():
    torch.manual_seed(0)
    network = ETNet(4, encoder="resnet18")
    with torch.no_grad():
        output = network(random_images(2, 3, 64, 64))
    assert (output.seg_logits.softmax(1) - 1 / 4).abs().max() < 0.15
    assert (output.edge_logits.softmax(1) - 1 / 2).abs().max() < 0.25


def test_a_recipe_becomes_the_network_it_describes():
    section = ModelSection(encoder="resnet18", decoder_channels=24, edge_channels=8, use_egm=True, use_wam=False)
    network = build_model(section, 5)
    assert network.encoder.name == "resnet18"
    assert network.training
    assert network.classifier.weight.shape == (5, 24, 1, 1)
    assert network.edge_guidance.classifier.weight.shape == (2, 16, 1, 1)
    assert network.weighted_aggregation.weighted_blocks is None


def test_the_network_learns_a_square_and_its_border():
    torch.manual_seed(0)
    images = 0.1 * random_images(4, 3, 64, 64)
    masks = torch.zeros(4, 64, 64, dtype=torch.long)
    for index in range(4):
        masks[index, 8 + 4 * index : 40 + 4 * index, 16:48] = 1
    images += masks[:, None] - 0.5
    network = ETNet(2, encoder="resnet18", **SMALL)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(network(images).seg_logits, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    labels = network(images).seg_logits.argmax(1)
    assert (labels == masks).float().mean() > 0.95


def test_the_option_beyond_the_paper_leaves_its_network_as_it_was():
    torch.manual_seed(0)
    plain = ETNet(2, encoder="resnet18", **SMALL).state_dict()
    torch.manual_seed(0)
    written_out = ETNet(2, encoder="resnet18", high_resolution=False, **SMALL).state_dict()
    names = set(plain)
    assert names == set(written_out)
    assert not any("d_block4" in name for name in names)
    assert all(torch.equal(plain[name], written_out[name]) for name in names)
    assert names < set(ETNet(2, encoder="resnet18", high_resolution=True, **SMALL).state_dict())


@pytest.mark.parametrize(("decoder_channels", "width"), [(256, 64), (32, 64), (512, 128)])
def test_the_fourth_d_block_has_the_channels_of_the_stem_but_a_quarter_at_least(decoder_channels, width):
    plain, finer = (
        ETNet(2, encoder="resnet18", decoder_channels=decoder_channels, edge_channels=16, high_resolution=option)
        for option in (False, True)
    )
    low = 0 if width == 64 else unit(64, width)
    block = unit(decoder_channels, width) + low + unit(width, width, side=3, groups=width) + unit(width, width)
    assert count(finer) - count(plain) == block + 2 * (width - decoder_channels)


def test_the_encoder_of_high_resolution_has_the_tensors_of_the_plain_one():
    plain, finer = (ETNet(2, encoder="resnet18", high_resolution=option, **SMALL).encoder for option in (False, True))
    shapes = {name: value.shape for name, value in plain.features.state_dict().items()}
    assert {name: value.shape for name, value in finer.features.state_dict().items()} == shapes


def test_high_resolution_shows_details_that_stride_4_cannot():
    """Logits enlarged from stride 2 bend where those from stride 4 are still straight."""
    bends = {}
    for option in (False, True):
        torch.manual_seed(0)
        network = ETNet(2, encoder="resnet18", high_resolution=option, **SMALL).eval()
        with torch.no_grad():
            logits = network(random_images(1, 3, 64, 64)).seg_logits
        # Bilinear from stride s: between two centres, which lie s pixels apart, the second difference is zero.
        second = logits.diff(n=2, dim=-1).abs().amax(dim=(0, 1, 2)) / logits.std()
        bends[option] = (second[1:-1] > 1e-3).float().mean().item()
    # At stride 4, two of four second differences are inside one straight piece; at stride 2, none is.
    assert bends[False] == pytest.approx(0.5, abs=0.05)
    assert bends[True] > 0.95


def test_the_options_of_a_recipe_reach_the_network():
    section = ModelSection(encoder="resnet18", decoder_channels=32, high_resolution=True)
    network = build_model(section, 2)
    assert network.stride == 2
    plain = build_model(ModelSection(encoder="resnet18", decoder_channels=32), 2)
    assert (plain.stride, plain.d_block4) == (4, None)
