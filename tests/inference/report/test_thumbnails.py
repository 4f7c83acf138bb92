from __future__ import annotations

import numpy as np
import pytest

from etnet.inference.report.pictures import LONGEST_SIDE
from etnet.inference.report.thumbnails import draw_thumbnail

GRAY = 128
COLORS = ((0, 0, 0), (255, 0, 0), (0, 0, 255))


def gray(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GRAY, np.uint8)


@pytest.mark.parametrize(("shape", "drawn"), [((640, 1280), (160, 320)), ((100, 50), (100, 50)), ((9000, 3), (320, 1))])
def test_large_images_are_reduced_and_small_ones_stay(shape, drawn):
    picture = draw_thumbnail(gray(*shape), np.zeros(shape, np.uint8), COLORS)
    assert picture.shape == (*drawn, 3)
    assert picture.dtype == np.uint8
    assert (picture == GRAY).all()


def test_a_class_is_a_light_fill_inside_a_strong_outline_and_nothing_outside():
    labels = np.zeros((100, 100), np.uint8)
    labels[20:60, 30:80] = 1
    picture = draw_thumbnail(gray(100, 100), labels, COLORS).astype(int)
    assert (picture[labels == 0] == GRAY).all()
    inside = picture[21:59, 31:79]
    assert (inside == inside[0, 0]).all()
    assert inside[0, 0] == pytest.approx(GRAY + 0.3 * (np.array(COLORS[1]) - GRAY), abs=0.51)
    assert (picture[20, 30:80] == COLORS[1]).all()
    assert (picture[20:60, 79] == COLORS[1]).all()


def test_a_line_thinner_than_a_reduced_pixel_is_as_strong_as_it_is_wide():
    labels = np.zeros((1280, 1280), np.uint8)
    labels[:, 640:642] = 2
    picture = draw_thumbnail(gray(1280, 1280), labels, COLORS).astype(float)
    half = GRAY + 0.5 * (np.array(COLORS[2]) - GRAY)
    assert np.abs(picture[:, 160] - half).max() < 1.5
    assert (np.delete(picture, 160, axis=1) == GRAY).all()


def test_where_the_picture_ends_there_is_no_outline():
    picture = draw_thumbnail(gray(50, 50), np.ones((50, 50), np.uint8), COLORS)
    assert (picture == picture[0, 0]).all()


def test_a_region_is_drawn_alone_and_at_full_detail():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (900, 900, 3), dtype=np.uint8)
    region = (slice(300, 300 + LONGEST_SIDE), slice(400, 400 + LONGEST_SIDE))
    picture = draw_thumbnail(image, np.zeros((900, 900), np.uint8), COLORS, region=region)
    np.testing.assert_array_equal(picture, image[region])


def test_the_image_that_was_given_stays_as_it_was():
    image = gray(40, 40)
    draw_thumbnail(image, np.ones((40, 40), np.uint8), COLORS)
    assert (image == GRAY).all()
