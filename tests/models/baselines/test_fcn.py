from __future__ import annotations

import torch
from torch.nn import functional

from etnet.models.baselines.fcn import FCN
from helpers.models import ModelTester, random_images


class TestFCN(ModelTester):
    has_edges = False

    def build(self):
        torch.manual_seed(0)
        return FCN(3, encoder="test_resnet")


def test_the_scores_are_those_of_the_last_map_enlarged():
    torch.manual_seed(0)
    network = FCN(3, encoder="resnet18").eval()
    images = random_images(1, 3, 64, 96)
    with torch.no_grad():
        scores = network.head(network.encoder(images)[3])
        assert scores.shape == (1, 3, 4, 6)
        expected = functional.interpolate(scores, size=(64, 96), mode="bilinear")
        torch.testing.assert_close(network(images).seg_logits, expected)
