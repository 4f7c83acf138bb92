"""The decoder's blocks against OpenCV, SciPy and NumPy."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from scipy.special import expit

from etnet.models.blocks import (
    ConvBnRelu,
    DBlock,
    WeightedBlock,
    initialize_blocks,
    initialize_classifier,
    lateral,
    upsample,
)
from etnet.ops.weighted_block import PLAIN_BELOW
from helpers.models import random_images


@pytest.mark.parametrize("scale", [2, 4])
def test_upsampling_is_what_opencv_calls_linear(scale):
    features = random_images(1, 1, 5, 7)
    expected = cv2.resize(features[0, 0].numpy(), (7 * scale, 5 * scale), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(upsample(features, scale)[0, 0].numpy(), expected, atol=1e-5)


def test_upsampling_by_one_is_nothing():
    features = random_images(1, 2, 3, 3)
    assert upsample(features, 1) is features


def test_weighted_block_multiplies_each_channel_by_its_weight():
    block = WeightedBlock(32, reduction=4)
    features = random_images(2, 32, 6, 5)
    reduce = block.reduce.weight.detach().numpy()[:, :, 0, 0]
    expand = block.expand.weight.detach().numpy()[:, :, 0, 0]
    context = features.numpy().mean(axis=(2, 3))
    inner = np.maximum(context @ reduce.T + block.reduce.bias.detach().numpy(), 0)
    weights = expit(inner @ expand.T + block.expand.bias.detach().numpy())
    expected = features.numpy() * weights[:, :, None, None]
    np.testing.assert_allclose(block(features).detach().numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_training_by_the_operator_follows_the_plain_formula(dtype, memory_format):
    torch.manual_seed(0)
    block = WeightedBlock(32)
    features = random_images(2, 32, 64, 72).to(dtype).contiguous(memory_format=memory_format)
    assert features.numel() > PLAIN_BELOW["training"]
    wide = features.double().requires_grad_()
    features.requires_grad_()
    out = block(features)
    assert "Etnet" in type(out.grad_fn).__name__ or "etnet" in str(out.grad_fn)
    out.backward(torch.ones_like(out))
    gradients = [parameter.grad.double() for parameter in block.parameters()]
    block = block.double()
    expected = block(wide)
    expected_gradients = torch.autograd.grad(expected, [wide, *block.parameters()], torch.ones_like(expected))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=tolerance)
    torch.testing.assert_close(
        [features.grad.double(), *gradients], list(expected_gradients), atol=1e-4, rtol=tolerance
    )


def test_exported_block_consists_of_standard_operators():
    block = WeightedBlock(16).eval()
    features = random_images(2, 16, 6, 5)
    for strict in (False, True):
        program = torch.export.export(block, (features,), strict=strict)
        called = {str(node.target).split(".")[0] for node in program.graph.nodes if node.op == "call_function"}
        assert called == {"aten"}
        torch.testing.assert_close(program.module()(features), block(features))


def test_traced_block_consists_of_standard_operators():
    block = WeightedBlock(16).eval()
    features = random_images(2, 16, 6, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is on its way out, its users are not
        traced = torch.jit.trace(block, features)
    kinds = {node.kind() for node in traced.inlined_graph.nodes()}
    assert "aten::sigmoid" in kinds
    assert {kind.split("::")[0] for kind in kinds} <= {"aten", "prim"}


def test_block_compiles_without_a_graph_break():
    torch.compiler.reset()
    block = WeightedBlock(16)
    features = random_images(2, 16, 6, 5)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(features), block(features))


def test_names_of_the_parameters_are_those_of_published_weights():
    assert list(WeightedBlock(16).state_dict()) == ["reduce.weight", "reduce.bias", "expand.weight", "expand.bias"]
    assert WeightedBlock(16).state_dict()["reduce.weight"].shape == (8, 16, 1, 1)


@pytest.mark.parametrize(("channels", "inner"), [(256, 16), (64, 8), (8, 8)])
def test_weighted_block_reduces_sixteenfold_but_not_below_eight(channels, inner):
    assert WeightedBlock(channels).reduce.out_channels == inner


def test_weights_do_not_depend_on_where_things_are():
    block = WeightedBlock(16)
    features = random_images(1, 16, 8, 8)
    moved = features.roll((3, 2), dims=(2, 3))
    torch.testing.assert_close(block(moved), block(features).roll((3, 2), dims=(2, 3)))


def test_d_block_adds_then_convolves_each_channel_then_mixes_them():
    block = DBlock(4, 4, 4, scale=2).eval()
    high, low = random_images(1, 4, 3, 3), random_images(1, 4, 6, 6, seed=1)
    fused = np.stack([cv2.resize(channel, (6, 6), interpolation=cv2.INTER_LINEAR) for channel in high[0].numpy()])
    fused += low[0].numpy()
    kernels = block.depthwise[0].weight.detach().numpy()[:, 0]
    # In evaluation a fresh normalisation divides by sqrt(1 + eps) and does nothing else.
    norm = np.sqrt(1 + block.depthwise[1].eps)
    spatial = np.stack([correlate(fused[c], kernels[c], mode="constant") for c in range(4)])
    spatial = np.maximum(spatial / norm, 0)
    mixing = block.pointwise[0].weight.detach().numpy()[:, :, 0, 0]
    expected = np.maximum(np.einsum("oc,chw->ohw", mixing, spatial) / norm, 0)
    np.testing.assert_allclose(block(high, low)[0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_d_block_unifies_the_channels_of_both_maps():
    block = DBlock(10, 6, 8, scale=1)
    assert block(random_images(2, 10, 4, 4), random_images(2, 6, 4, 4)).shape == (2, 8, 4, 4)


def test_a_map_with_the_right_channels_has_no_lateral_convolution():
    assert isinstance(lateral(8, 8), torch.nn.Identity)
    assert isinstance(lateral(4, 8), ConvBnRelu)


@pytest.mark.parametrize("groups", [1, 256])
def test_the_start_keeps_the_size_of_the_gradient(groups):
    torch.manual_seed(0)
    unit = ConvBnRelu(256, 256, kernel_size=3, groups=groups)
    initialize_blocks(unit)
    # He et al.: variance 2 / (outputs that one input reaches), which for a depthwise kernel is its 9 positions.
    expected = np.sqrt(2 / (9 * 256 / groups))
    assert unit[0].weight.std().item() == pytest.approx(expected, rel=0.05)


def test_the_classifier_starts_without_bias_and_almost_flat():
    layer = torch.nn.Conv2d(256, 5, 1)
    initialize_classifier(layer)
    assert layer.bias.abs().max() == 0
    assert 0 < layer.weight.std() < 0.02
