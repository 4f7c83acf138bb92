from __future__ import annotations

from dataclasses import asdict

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from etnet.data.image_statistics import image_statistics, measure_training_range, working_copy
from etnet.errors import DataError
from helpers.photographs import PhotographFolder, photograph


def test_a_picture_of_two_greys_has_the_values_computed_by_hand():
    image = np.full((100, 100, 3), 51, np.uint8)
    image[:, 50:] = 153
    found = image_statistics(image)
    assert found.brightness == pytest.approx(102 / 255)
    assert found.contrast == pytest.approx(51 / 255)
    assert found.red == pytest.approx(1 / 3)
    assert found.blue == pytest.approx(1 / 3)
    assert found.frame == pytest.approx(0)


def test_colour_is_the_share_of_a_channel_in_the_mean():
    image = np.full((64, 64, 3), (120, 60, 20), np.uint8)
    assert image_statistics(image).red == pytest.approx(0.6)
    assert image_statistics(image).blue == pytest.approx(0.1)


def test_the_black_border_is_no_part_of_brightness_contrast_and_colour():
    image = np.zeros((200, 300, 3), np.uint8)
    image[30:170, 40:260] = (200, 100, 50)
    found = image_statistics(image)
    whole = image_statistics(np.full((200, 300, 3), (200, 100, 50), np.uint8))
    for name in ("brightness", "contrast", "red", "blue"):
        assert getattr(found, name) == pytest.approx(getattr(whole, name)), name


@pytest.mark.parametrize("factor", [0.75, 2, 3])
def test_the_size_of_a_picture_hardly_changes_its_statistics(factor):
    # A quarter: resampling takes some of the finest detail, and `quality_flags` allows for as much.
    image = photograph(0, size=640)
    size = round(640 * factor)
    resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    for name, value in asdict(image_statistics(resized)).items():
        assert value == pytest.approx(asdict(image_statistics(image))[name], rel=0.25), name


def test_sharpness_falls_with_every_blur_and_is_blind_to_brightness_and_contrast():
    image = photograph(0, size=640)
    blurred = [Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)) for sigma in (0.01, 1.5, 3, 6)]
    sharpness = [image_statistics(np.asarray(each)).sharpness for each in blurred]
    assert all(np.diff(sharpness) < 0)
    assert sharpness[-1] < 0.5 * sharpness[0]
    darker = (image * 0.5).astype(np.uint8)
    assert image_statistics(darker).sharpness == pytest.approx(sharpness[0], rel=0.1)


def test_the_frame_changes_its_sign_in_a_negative():
    image = photograph(0, size=640)
    negative = np.asarray(ImageOps.invert(Image.fromarray(image)))
    assert image_statistics(image).frame < -0.5
    assert image_statistics(negative).frame > 0.5


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("size", [(1, 1), (1, 400), (3, 2), (700, 1)])
def test_the_smallest_and_emptiest_images_have_finite_statistics(size, value):
    found = image_statistics(np.full((*size, 3), value, np.uint8))
    assert np.isfinite(list(asdict(found).values())).all()
    assert found.sharpness == 0


def test_large_images_are_reduced_and_small_ones_are_not_enlarged():
    assert working_copy(np.zeros((4000, 1000, 3), np.uint8)).shape == (320, 80, 3)
    assert working_copy(np.zeros((50, 60, 3), np.uint8)).shape == (50, 60, 3)


def test_the_training_range_spans_the_statistics_of_its_images():
    images = [photograph(seed, size=200) for seed in range(4)]
    images[2] = (images[2] * 0.6).astype(np.uint8)
    found = measure_training_range(PhotographFolder(images=images))
    each = [asdict(image_statistics(image)) for image in images]
    assert found.images == 4
    for name in each[0]:
        assert getattr(found.low, name) == min(values[name] for values in each)
        assert getattr(found.high, name) == max(values[name] for values in each)


def test_of_many_images_some_from_all_over_the_data_set_are_read():
    images = PhotographFolder(images=[np.full((8, 8, 3), 100, np.uint8)] * 1000)
    assert measure_training_range(images, limit=5).images == 5
    assert images.read == [0, 250, 500, 749, 999]


def test_an_image_that_cannot_be_read_is_named():
    class Broken(PhotographFolder):
        def load(self, index):
            raise DataError(f"{index}.png: cannot be read")

    with pytest.raises(DataError, match=r"0\.png"):
        measure_training_range(Broken([0]))
