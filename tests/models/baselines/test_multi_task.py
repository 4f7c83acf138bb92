from __future__ import annotations

import torch

from etnet.models import ETNet
from etnet.models.baselines.multi_task import MultiTask
from helpers.models import ModelTester, random_images

SMALL = {"encoder": "test_resnet", "decoder_channels": 32}


class TestMultiTask(ModelTester):
    def build(self):
        torch.manual_seed(0)
        return MultiTask(3, **SMALL)


def test_it_is_the_base_network_with_one_more_classifier():
    base = ETNet(3, use_egm=False, use_wam=False, **SMALL).eval()
    network = MultiTask(3, **SMALL).eval()
    missing, unexpected = network.load_state_dict(base.state_dict(), strict=False)
    assert (missing, unexpected) == (["edge_classifier.weight", "edge_classifier.bias"], [])
    images = random_images(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images).seg_logits, base(images).seg_logits)


def test_both_predictions_are_made_of_the_same_features():
    network = MultiTask(2, **SMALL)
    with torch.no_grad():
        network.edge_classifier.weight.copy_(network.classifier.weight)
        output = network(random_images(2, 3, 64, 64))
    assert torch.equal(output.edge_logits, output.seg_logits)
