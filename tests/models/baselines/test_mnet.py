from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from etnet.models.baselines.mnet import MNet, mean_prediction
from helpers.models import ModelTester, random_images

SMALL = (4, 8, 8, 16, 16)


class TestMNet(ModelTester):
    has_edges = False
    side_outputs = 4

    def build(self):
        torch.manual_seed(0)
        return MNet(3, channels=SMALL)


class TestPolarMNet(TestMNet):
    num_classes = 2

    def build(self):
        torch.manual_seed(0)
        return MNet(2, channels=SMALL, polar=True)


def double(inputs: int, outputs: int) -> int:
    """Parameters of two 3x3 convolutions without bias and their normalisations."""
    return 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs


def test_its_parameters_are_those_counted_by_hand():
    down = double(3, 32) + double(32 + 64, 64) + double(64 + 128, 128) + double(128 + 256, 256) + double(256, 512)
    pyramid = sum(3 * 9 * width + 2 * width for width in (64, 128, 256))
    enlarge = sum(4 * 2 * width * width + width for width in (256, 128, 64, 32))
    up = sum(double(2 * width, width) for width in (256, 128, 64, 32))
    classifiers = sum(3 * width + 3 for width in (256, 128, 64, 32))
    counted = sum(value.numel() for value in MNet(3).parameters())
    assert counted == down + pyramid + enlarge + up + classifiers


def test_the_prediction_is_the_mean_of_the_side_outputs_probabilities():
    network = MNet(3, channels=SMALL).eval()
    with torch.no_grad():
        for classifier in network.classifiers:
            classifier.weight.normal_(0, 1)
        output = network(random_images(1, 3, 32, 48))
    expected = np.mean([softmax(side.numpy(), axis=1) for side in output.side_logits], axis=0)
    np.testing.assert_allclose(output.seg_logits.softmax(dim=1).numpy(), expected, atol=1e-5)


def test_certain_side_outputs_stay_finite():
    certain = torch.tensor([200.0, -200.0]).view(1, 2, 1, 1)
    mean = mean_prediction([certain, certain, -certain, certain])
    torch.testing.assert_close(mean.softmax(dim=1).flatten(), torch.tensor([0.75, 0.25]))
    assert mean_prediction([certain]).isfinite().all()


@pytest.mark.parametrize("level", [1, 2, 3])
def test_every_image_of_the_pyramid_is_the_mean_of_the_pixels_under_it(level):
    network = MNet(2, channels=SMALL).eval()
    seen = []
    network.pyramid[level - 1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = random_images(1, 3, 64, 32)
    with torch.no_grad():
        network(images)
    step = 2**level
    expected = images.reshape(1, 3, 64 // step, step, 32 // step, step).mean(dim=(3, 5))
    torch.testing.assert_close(seen[0], expected)


def test_the_polar_network_sees_circles_as_rows():
    network = MNet(2, channels=SMALL, polar=True).eval()
    seen = []
    network.down[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    axis = torch.linspace(-1, 1, 64)
    radius = torch.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    with torch.no_grad():
        network(radius.expand(1, 3, 64, 64))
    rows = seen[0][0, 0]
    assert rows.std(dim=1).max() < 0.02
    assert (rows.mean(dim=1).diff() > 0).all()


def test_it_turns_with_the_image_when_it_is_polar():
    """A quarter turn moves every row of the polar image along itself, which convolutions follow but at the seam."""
    torch.manual_seed(0)
    network = MNet(2, channels=SMALL, polar=True).eval()
    plain = MNet(2, channels=SMALL).eval()
    plain.load_state_dict(network.state_dict())
    image = torch.nn.functional.interpolate(random_images(1, 3, 6, 6), size=(128, 128), mode="bicubic")
    differences = []
    with torch.no_grad():
        for each in (network, plain):
            turned = torch.rot90(each(torch.rot90(image, 1, (2, 3))).seg_logits, -1, (2, 3))
            straight = each(image).seg_logits
            differences.append(float((turned - straight).abs().mean() / straight.std()))
    assert differences[0] < 0.5 * differences[1]
