"""The weighted aggregation module: the sum from coarse to fine, the edge features, the switch of Table 3."""

from __future__ import annotations

import pytest
import torch

from etnet.models import WeightedAggregationModule
from helpers.models import random_images

STRIDES = (16, 8, 4)


def side_outputs(channels=16):
    return tuple(random_images(2, channels, 64 // stride, 96 // stride, seed=stride) for stride in STRIDES)


def capture_fused(module):
    """What the 1x1 convolution at the end receives."""
    received = []
    module.fuse.register_forward_pre_hook(lambda _, arguments: received.append(arguments[0]))
    return received


def test_maps_are_weighted_and_summed_from_coarse_to_fine():
    module = WeightedAggregationModule(16, 0, strides=STRIDES)
    received = capture_fused(module)
    d1, d2, d3 = side_outputs()
    module((d1, d2, d3), None)
    double = torch.nn.UpsamplingBilinear2d(scale_factor=2)
    double.align_corners = False
    w1, w2, w3 = (block(output) for block, output in zip(module.weighted_blocks, (d1, d2, d3), strict=True))
    torch.testing.assert_close(received[0], double(double(w1) + w2) + w3)


def test_edge_features_are_concatenated_behind_the_sum():
    module = WeightedAggregationModule(16, 4, strides=STRIDES)
    received = capture_fused(module)
    guidance = random_images(2, 4, 16, 24)
    fused = module(side_outputs(), guidance)
    assert fused.shape == (2, 16, 16, 24)
    assert torch.equal(received[0][:, 16:], guidance)


def test_without_weights_the_last_map_goes_on_alone():
    module = WeightedAggregationModule(16, 0, strides=STRIDES, use_weights=False)
    received = capture_fused(module)
    outputs = side_outputs()
    module(outputs, None)
    assert torch.equal(received[0], outputs[-1])


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_every_side_output_matters(missing):
    module = WeightedAggregationModule(16, 0, strides=STRIDES).eval()
    outputs = list(side_outputs())
    whole = module(outputs, None)
    outputs[missing] = torch.zeros_like(outputs[missing])
    assert not torch.allclose(module(outputs, None), whole)
