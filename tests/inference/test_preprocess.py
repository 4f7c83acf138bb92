from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etnet.errors import DataError, UsageError
from etnet.inference.preprocess import (
    fit,
    paste_plane,
    paste_probabilities,
    plan,
    region_contract,
    restore,
    restore_labels,
)
from etnet.types import ImageStatistics, RegionOfInterest, TrainingRange
from helpers.backends import contract


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_maps(image: np.ndarray) -> np.ndarray:
    return np.moveaxis(image, -1, 0).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), multiple=st.sampled_from([1, 16, 32]))
def test_fitting_and_restoring_gives_back_every_pixel_exactly(height, width, multiple):
    image = noise(height, width)
    padded, geometry = fit(image, contract(size_multiple=multiple))
    assert padded.shape[0] % multiple == 0
    assert padded.shape[1] % multiple == 0
    assert padded.dtype == np.uint8
    assert padded.shape[0] - height < multiple
    np.testing.assert_array_equal(restore(as_maps(padded), geometry), as_maps(image))


def test_padding_reflects_without_repeating_the_border_pixel():
    image = np.arange(20, dtype=np.uint8)[None, :, None].repeat(20, 0).repeat(3, 2)
    padded, _ = fit(image, contract())
    assert padded[0, 18:, 0].tolist() == [18, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7]


def test_an_image_smaller_than_its_padding_repeats_the_border_pixel():
    padded, _ = fit(np.full((1, 1, 3), 77, np.uint8), contract())
    assert padded.shape == (16, 16, 3)
    assert (padded == 77).all()


def test_an_image_that_fits_is_passed_on_unchanged():
    image = noise(32, 48)
    padded, geometry = fit(image, contract())
    np.testing.assert_array_equal(padded, image)
    assert geometry.size == geometry.padded


def test_the_contract_size_sets_the_network_size_and_results_come_back_at_the_image_size():
    padded, geometry = fit(noise(50, 90), contract(image_size=(40, 64)))
    assert geometry.resized == (40, 64)
    assert padded.shape == (48, 64, 3)
    assert restore(np.zeros((2, 48, 64), np.float32), geometry).shape == (2, 50, 90)


@pytest.mark.parametrize("image_size", [(64, 64), (200, 160)])
def test_resizing_there_and_back_does_not_shift_a_shape(image_size):
    rows, columns = np.mgrid[:117, :93]
    disc = ((rows - 40.0) ** 2 + (columns - 60.0) ** 2 < 15**2).astype(np.uint8) * 255
    padded, geometry = fit(np.repeat(disc[..., None], 3, axis=2), contract(image_size=image_size))
    weight = restore(as_maps(padded), geometry)[0]
    centre = (float((rows * weight).sum() / weight.sum()), float((columns * weight).sum() / weight.sum()))
    assert centre == pytest.approx((40, 60), abs=0.1)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
    ],
)
def test_arrays_that_are_no_rgb_image_are_refused(image, message):
    with pytest.raises(DataError, match=message):
        fit(image, contract())


def test_planning_rounds_up_to_the_multiple():
    geometry = plan((584, 565), contract())
    assert geometry.padded == (592, 576)


def region(*, side: float, size: int) -> RegionOfInterest:
    return RegionOfInterest(side=side, size=size)


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(2, 60),
    row=st.floats(0, 1),
    column=st.floats(0, 1),
    share=st.floats(0.05, 1.0),
)
def test_a_region_comes_back_to_the_pixels_it_was_cut_from(height, width, row, column, share):
    image = noise(height, width)
    # The network's size is that of the window, so that nothing is resized and every pixel can be told from the others.
    roi = region(side=share, size=max(1, round(share * width)))
    center = (row * height, column * width)
    padded, geometry = fit(image, contract(size_multiple=16, roi=roi), center=center)
    assert padded.shape[0] % 16 == 0
    assert padded.shape[0] == padded.shape[1]
    visible = geometry.window.inside(image.shape)
    restored = paste_plane(restore_labels(padded[..., 1], geometry), geometry)
    np.testing.assert_array_equal(restored[visible], image[..., 1][visible])
    assert not restored[~visible].any()
    # The centre is in the middle of the square, to half a pixel.
    assert abs(geometry.window.top + geometry.window.side / 2 - center[0]) <= 0.5
    assert abs(geometry.window.left + geometry.window.side / 2 - center[1]) <= 0.5


def test_probabilities_outside_the_region_are_those_of_certain_background():
    maps = np.random.default_rng(0).random((3, 16, 16), dtype=np.float32)
    _, geometry = fit(noise(40, 50), contract(roi=region(side=0.2, size=16)), center=(2.0, 48.0))
    whole = paste_probabilities(restore(maps, geometry), geometry)
    inside = geometry.window.inside((40, 50))
    assert whole.shape == (3, 40, 50)
    assert (whole[0][~inside] == 1).all()
    assert not whole[1:, ~inside].any()
    # Rows 0..6 and columns 43..49 of a square of 10 pixels that begins at row -3, column 43.
    assert geometry.window == (-3, 43, 10)
    np.testing.assert_array_equal(whole[:, :7, 43:], restore(maps, geometry)[:, 3:, :7])


@pytest.mark.parametrize("size", [64, 128, 208])
def test_cutting_and_pasting_a_resized_region_does_not_shift_a_shape(size):
    rows, columns = np.mgrid[:117, :193] + 0.5
    disc = ((rows - 40.0) ** 2 + (columns - 150.0) ** 2 < 15**2).astype(np.uint8) * 255
    # The square of 100 pixels reaches beyond the top and the right border; its centre is not that of the disc.
    rule = contract(roi=region(side=100 / 193, size=size))
    padded, geometry = fit(np.repeat(disc[..., None], 3, axis=2), rule, center=(45.2, 161.7))
    assert padded.shape == (size, size, 3)
    weight = paste_probabilities(restore(as_maps(padded), geometry), geometry)[1]
    centre = (float((rows * weight).sum() / weight.sum()), float((columns * weight).sum() / weight.sum()))
    assert centre == pytest.approx((40, 150), abs=0.05)
    assert weight.sum() / 255 == pytest.approx(np.pi * 15**2, rel=0.02)


def test_a_region_beyond_the_border_is_continued_by_reflection():
    image = np.arange(20, dtype=np.uint8)[None, :, None].repeat(20, 0).repeat(3, 2)
    padded, _ = fit(image, contract(roi=region(side=0.8, size=16)), center=(10.0, 2.0))
    assert padded[0, :, 0].tolist() == [6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_network_for_regions_names_the_command_that_finds_the_centre():
    with pytest.raises(UsageError, match="etnet bundle"):
        fit(noise(20, 20), contract(roi=region(side=0.5, size=16)))


def test_a_centre_for_a_network_that_sees_the_whole_image_is_refused():
    with pytest.raises(UsageError, match="whole images"):
        fit(noise(20, 20), contract(), center=(10.0, 10.0))


@pytest.mark.parametrize("center", [(-1.0, 5.0), (5.0, 30.5), (21.0, 5.0), (float("nan"), 5.0), (5.0, float("inf"))])
def test_a_centre_outside_the_image_is_refused(center):
    with pytest.raises(DataError, match=r"outside the image of 20x30 pixels"):
        fit(noise(20, 30), contract(roi=region(side=0.5, size=16)), center=center)


@pytest.mark.parametrize("center", [(0.0, 0.0), (20.0, 30.0), (0.0, 30.0)])
def test_a_centre_in_the_corner_of_the_image_is_taken(center):
    padded, geometry = fit(noise(20, 30), contract(roi=region(side=1.0, size=32)), center=center)
    assert padded.shape == (32, 32, 3)
    assert geometry.window.side == 30


def test_the_contract_of_regions_takes_them_whole_at_the_network_size():
    rule = region_contract(contract(roi=region(side=0.3, size=48)))
    assert (rule.roi, rule.image_size) == (None, (48, 48))
    padded, _ = fit(noise(20, 30), rule)
    assert padded.shape == (48, 48, 3)
    assert region_contract(contract(image_size=(40, 64))) == contract(image_size=(40, 64))


def test_the_contract_of_regions_knows_no_range_of_whole_images():
    statistics = ImageStatistics(0.3, 0.1, 0.5, 0.5, 0.1, -1.0)
    trained = replace(contract(roi=region(side=0.3, size=48)), training_range=TrainingRange(statistics, statistics, 1))
    assert region_contract(trained).training_range is None
