from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from etnet.config.load import load_recipe
from etnet.data.datasets import open_dataset
from etnet.data.image_statistics import image_statistics, measure_training_range
from etnet.errors import DataError
from etnet.inference.quality import FLAGS, quality_flags
from etnet.types import TrainingRange
from helpers.backends import contract
from helpers.photographs import PhotographFolder, photograph

TRAINED = replace(contract(), training_range=measure_training_range(PhotographFolder(range(12))))
UNKNOWN = contract()


def test_images_like_those_trained_on_have_no_flag():
    for seed in range(12, 40):
        assert quality_flags(photograph(seed), TRAINED) == (), seed
        assert quality_flags(photograph(seed), UNKNOWN) == (), seed


@pytest.mark.parametrize("factor", [0.5, 2])
def test_another_resolution_of_the_same_scene_has_no_flag(factor):
    image = photograph(20)
    size = round(image.shape[0] * factor)
    assert quality_flags(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), TRAINED) == ()


@pytest.mark.parametrize("known", [TRAINED, UNKNOWN])
@pytest.mark.parametrize("value", [0, 90, 255])
def test_an_image_of_one_grey_is_blank_and_nothing_else(value, known):
    image = np.full((120, 160, 3), value, np.uint8)
    noise = np.random.default_rng(0).integers(0, 4, image.shape, dtype=np.uint8)
    assert quality_flags(image, known) == ("blank",)
    assert quality_flags(np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8), known) == ("blank",)


def test_a_label_burnt_into_a_blank_image_does_not_hide_that_it_is_blank():
    image = np.zeros((500, 500, 3), np.uint8)
    image[5:25, 5:55] = 255
    assert quality_flags(image, UNKNOWN) == ("blank",)


def test_a_small_bright_structure_on_black_is_no_blank_image():
    image = np.zeros((500, 500, 3), np.uint8)
    image[200:260, 200:260] = 220
    assert "blank" not in quality_flags(image, UNKNOWN)


def test_an_under_exposed_image_is_too_dark():
    image = photograph(15)
    assert quality_flags((image * 0.3).astype(np.uint8), TRAINED) == ("too_dark", "outside_training_range")
    assert quality_flags((image * 0.3).astype(np.uint8), UNKNOWN) == ()
    assert quality_flags((image * 0.1).astype(np.uint8), UNKNOWN) == ("too_dark",)


def test_an_over_exposed_image_is_too_bright():
    image = np.clip(photograph(15).astype(int) + 200, 0, 255).astype(np.uint8)
    assert {"too_bright", "outside_training_range"} <= set(quality_flags(image, TRAINED))
    assert quality_flags(image, UNKNOWN) == ("too_bright",)


def test_a_blurred_image_is_blurred_only_where_sharpness_is_known():
    image = np.asarray(Image.fromarray(photograph(15)).filter(ImageFilter.GaussianBlur(4)))
    assert quality_flags(image, TRAINED) == ("blurred",)
    assert quality_flags(image, UNKNOWN) == ()


def test_a_negative_is_inverted():
    image = np.asarray(ImageOps.invert(Image.fromarray(photograph(15))))
    assert "inverted" in quality_flags(image, TRAINED)


def test_a_network_that_learned_bright_frames_does_not_call_them_inverted():
    negatives = [255 - photograph(seed) for seed in range(6)]
    trained = replace(contract(), training_range=measure_training_range(PhotographFolder(images=negatives)))
    assert quality_flags(255 - photograph(20), trained) == ()


def test_swapped_channels_and_flat_contrast_are_outside_the_training_range():
    swapped = np.ascontiguousarray(photograph(15)[..., ::-1])
    assert quality_flags(swapped, TRAINED) == ("outside_training_range",)
    image = photograph(15)
    mean = image[image.sum(axis=2) > 0].mean(axis=0)
    flat = np.where(image.sum(axis=2, keepdims=True) > 0, mean + 0.1 * (image - mean), 0).astype(np.uint8)
    assert "outside_training_range" in quality_flags(flat, TRAINED)


def test_a_range_of_one_image_leaves_room_around_it():
    statistics = image_statistics(photograph(3))
    single = replace(contract(), training_range=TrainingRange(statistics, statistics, 1))
    image = photograph(3)
    assert quality_flags((image * 0.9).astype(np.uint8), single) == ()
    assert "too_dark" in quality_flags((image * 0.6).astype(np.uint8), single)


def test_flags_come_in_the_documented_order():
    image = np.asarray(Image.fromarray(photograph(15)).filter(ImageFilter.GaussianBlur(4))) * 0.3
    found = quality_flags(image.astype(np.uint8), TRAINED)
    assert found == tuple(name for name in FLAGS if name in found)
    assert {"too_dark", "blurred"} <= set(found)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (2, 3), (600, 1)])
def test_the_smallest_images_can_be_checked(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for known in (TRAINED, UNKNOWN):
        assert set(quality_flags(image, known)) <= set(FLAGS)


def test_what_is_no_rgb_image_is_refused():
    with pytest.raises(DataError, match="RGB"):
        quality_flags(np.zeros((4, 4), np.uint8), UNKNOWN)


@pytest.mark.parametrize(("data_set", "folder"), [("drive", "drive_root"), ("montgomery", "montgomery_root")])
def test_real_test_images_have_no_flag_and_blurred_ones_do(data_set, folder, request):
    data = load_recipe(data_set).data
    root = request.getfixturevalue(folder)
    trained = replace(contract(), training_range=measure_training_range(open_dataset(data, root, "train")))
    others = open_dataset(data, root, "test")
    for index in range(20):
        image = others.load(index).image
        blurred = cv2.GaussianBlur(image, (0, 0), image.shape[0] / 200)
        assert quality_flags(image, trained) == (), others.ids[index]
        assert quality_flags(blurred, trained) == ("blurred",), others.ids[index]
