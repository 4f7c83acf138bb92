from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etnet.errors import UsageError
from etnet.export.subject import open_subject
from etnet.types import RegionOfInterest
from helpers.backends import image_of
from helpers.bundles import draw_disc, segmenter_contract, segmenter_recipe
from helpers.onnx_graphs import write_small_onnx
from helpers.weights import write_header_only


@pytest.fixture
def eyes(tmp_path) -> Path:
    """Four training pairs and a test pair of drawn discs, 60x80 pixels."""
    for part, count in (("eyes", 4), ("eyes/test", 1)):
        for name in ("images", "masks"):
            (tmp_path / part / name).mkdir(parents=True)
        for index in range(count):
            mask = draw_disc((60, 80), (25 + 2 * index, 40), 12)
            Image.fromarray(image_of(mask)).save(tmp_path / part / f"images/{index}.png")
            Image.fromarray(mask).save(tmp_path / part / f"masks/{index}.png")
    return tmp_path / "eyes"


def test_a_network_of_regions_is_measured_on_regions_and_calibrated_on_others(eyes, tmp_path):
    weights = write_header_only(tmp_path / "best.safetensors", segmenter_recipe())
    subject = open_subject(weights, data=eyes, split="test", size=None)
    assert subject.size == (48, 48)
    (item,) = subject.images
    assert item.image.shape == (48, 48, 3)
    # The square of 40 pixels around the disc, enlarged to 48: the disc of radius 12 covers (12 * 48 / 40)^2 * pi.
    assert np.count_nonzero(item.mask) == pytest.approx(np.pi * (12 * 48 / 40) ** 2, rel=0.05)
    np.testing.assert_array_equal(np.unique(item.mask), [0, 1, 2])


def test_another_size_than_that_of_the_regions_is_refused(eyes, tmp_path):
    weights = write_header_only(tmp_path / "best.safetensors", segmenter_recipe())
    with pytest.raises(UsageError, match="regions of interest at 48x48"):
        open_subject(weights, data=eyes, split="test", size=(64, 64))


def test_a_file_of_free_size_is_timed_at_the_size_of_its_regions(tmp_path):
    rule = segmenter_contract(RegionOfInterest(side=0.5, size=48))
    model = write_small_onnx(tmp_path / "model.onnx", size=None, num_classes=3, trained_as=rule)
    subject = open_subject(model, data=None, split="test", size=None)
    assert (subject.size, subject.images[0].image.shape) == ((48, 48), (48, 48, 3))


def test_images_without_masks_are_taken_as_regions(eyes, tmp_path):
    rule = segmenter_contract(RegionOfInterest(side=0.5, size=48))
    model = write_small_onnx(tmp_path / "model.onnx", size=(48, 48), num_classes=3, trained_as=rule)
    subject = open_subject(model, data=eyes / "images", split="test", size=None)
    assert [item.image.shape for item in subject.images] == [(60, 80, 3)] * 4
