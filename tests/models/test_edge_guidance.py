"""The edge guidance module: shapes, wiring and independence of its two branches."""

from __future__ import annotations

import torch

from etnet.models import EdgeGuidanceModule
from helpers.models import random_images


def inputs():
    return random_images(2, 6, 16, 24), random_images(2, 10, 8, 12, seed=1)


def test_features_keep_the_stride_of_e1_and_logits_have_the_size_of_the_image():
    features, logits = EdgeGuidanceModule(6, 10, 8)(*inputs())
    assert features.shape == (2, 8, 16, 24)
    assert logits.shape == (2, 2, 64, 96)
    assert features.min() >= 0
    assert logits.min() < 0


def test_each_stage_passes_a_1x1_then_a_3x3_convolution():
    module = EdgeGuidanceModule(6, 10, 8)
    for branch, channels in ((module.e1_branch, 6), (module.e2_branch, 10)):
        shapes = [tuple(unit[0].weight.shape) for unit in branch]
        assert shapes == [(8, channels, 1, 1), (8, 8, 3, 3)]


def test_both_stages_reach_both_outputs():
    module = EdgeGuidanceModule(6, 10, 8)
    for output in (0, 1):
        e1, e2 = (stage.requires_grad_() for stage in inputs())
        module(e1, e2)[output].square().sum().backward()
        assert e1.grad.abs().sum() > 0
        assert e2.grad.abs().sum() > 0


def test_edge_supervision_does_not_touch_the_guidance_branch():
    module = EdgeGuidanceModule(6, 10, 8)
    module(*inputs())[1].square().sum().backward()
    touched = {name.split(".")[0] for name, value in module.named_parameters() if value.grad is not None}
    assert touched == {"e1_branch", "e2_branch", "classifier"}


def test_a_constant_image_has_constant_logits_away_from_the_padding():
    module = EdgeGuidanceModule(6, 10, 8).eval()
    with torch.no_grad():
        logits = module(torch.ones(1, 6, 16, 16), torch.ones(1, 10, 8, 8))[1]
    inner = logits[:, :, 16:-16, 16:-16]
    torch.testing.assert_close(inner, inner[:, :, :1, :1].expand_as(inner))
