from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from etnet.data.edges import edge_map

MASKS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2))


def borders_by_definition(mask: np.ndarray, ignore_index: int | None = None) -> np.ndarray:
    """The definition of the docstring, pixel by pixel."""
    height, width = mask.shape
    result = np.zeros_like(mask)
    for row, column in np.ndindex(height, width):
        around = mask[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        labelled = around[around != ignore_index] if ignore_index is not None else around
        if mask[row, column] != ignore_index:
            result[row, column] = (labelled < mask[row, column]).any()
    return result


@given(mask=MASKS)
@settings(max_examples=60, deadline=None)
def test_width_1_gives_the_pixels_with_a_lower_neighbour(mask):
    assert np.array_equal(edge_map(mask, width=1), borders_by_definition(mask))


@given(mask=MASKS, ignore_index=st.sampled_from([2, 255]))
@settings(max_examples=60, deadline=None)
def test_pixels_without_label_make_no_border_and_keep_their_value(mask, ignore_index):
    if ignore_index == 255:
        mask = np.where(mask == 2, 255, mask).astype(np.uint8)
    expected = borders_by_definition(mask, ignore_index)
    expected[mask == ignore_index] = ignore_index
    assert np.array_equal(edge_map(mask, width=1, ignore_index=ignore_index), expected)


@pytest.mark.parametrize("width", [3, 5, 9])
def test_a_wider_band_is_every_pixel_within_half_the_width_of_a_border(width):
    mask = np.zeros((41, 43), np.uint8)
    mask[12:28, 15:30] = 1
    distance = ndimage.distance_transform_edt(edge_map(mask, width=1) == 0)
    band = edge_map(mask, width=width)
    # OpenCV's ellipse is a rasterised disc: its rim differs from the exact one by less than a pixel.
    assert band[distance <= width / 2 - 1].all()
    assert not band[distance > width / 2].any()


def test_a_straight_border_gets_exactly_the_width():
    mask = np.zeros((30, 30), np.uint8)
    mask[:, 12:] = 1
    for width in range(1, 10):
        assert edge_map(mask, width=width)[15].sum() == width


def test_the_border_of_the_image_is_no_boundary():
    assert not edge_map(np.full((5, 6), 1, np.uint8), width=3).any()


def test_boundaries_between_two_objects_count():
    mask = np.array([[1, 1, 2, 2]], np.uint8)
    assert edge_map(mask, width=1).tolist() == [[0, 0, 1, 0]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_tiny_masks_are_allowed(shape):
    assert edge_map(np.zeros(shape, np.uint8), width=5).shape == shape


def test_a_mask_without_any_label_is_all_ignored():
    mask = np.full((4, 4), 255, np.uint8)
    assert (edge_map(mask, width=3, ignore_index=255) == 255).all()


def test_the_mask_is_not_changed():
    mask = np.array([[0, 1, 255]], np.uint8)
    before = mask.copy()
    edge_map(mask, width=3, ignore_index=255)
    assert np.array_equal(mask, before)
