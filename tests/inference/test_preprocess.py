from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etnet.errors import DataError
from etnet.inference.preprocess import fit, plan, restore
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
