from __future__ import annotations

import math

import numpy as np
import pytest

from etnet.errors import DataError
from etnet.metrics.lungs import lung_measures, lung_side_measures, lung_stack_measures, split_lungs
from etnet.metrics.scale import millimetres


def boxes(*corners: tuple[int, int, int, int]) -> np.ndarray:
    """Rectangles as (top, bottom, left, right) in an image of 100 x 120 pixels."""
    mask = np.zeros((100, 120), bool)
    for top, bottom, left, right in corners:
        mask[top:bottom, left:right] = True
    return mask


RIGHT, LEFT = (10, 90, 10, 50), (20, 80, 70, 110)


def test_the_patients_right_lung_is_on_the_images_left():
    measures = lung_measures(boxes(RIGHT, LEFT))
    assert measures == {
        "lung_right_area_px": 80 * 40,
        "lung_left_area_px": 60 * 40,
        "lung_left_to_right_area_ratio": 0.75,
        "lungs_told_apart": 1,
    }


def test_areas_are_in_square_millimetres_where_the_spacing_is_known():
    measures = lung_measures(boxes(RIGHT, LEFT), millimetres(0.5, 2.0))
    assert (measures["lung_right_area_mm2"], measures["lung_left_area_mm2"]) == (3200, 2400)
    assert measures["lung_left_to_right_area_ratio"] == 0.75
    assert lung_measures(boxes(RIGHT, LEFT), millimetres(0.5, 0.5))["lung_left_area_mm2"] == 600


def test_a_fragment_belongs_to_the_lung_it_is_nearer_to():
    sides = split_lungs(boxes(RIGHT, LEFT, (92, 95, 15, 20), (85, 90, 65, 70)))
    assert sides is not None
    np.testing.assert_array_equal(sides[0], boxes(RIGHT, (92, 95, 15, 20)))
    np.testing.assert_array_equal(sides[1], boxes(LEFT, (85, 90, 65, 70)))


def test_the_background_belongs_to_no_side_wherever_it_lies():
    right, left = boxes((10, 90, 70, 90)), boxes((10, 90, 95, 115))
    for columns in (slice(None), slice(None, None, -1)):
        sides = split_lungs((right | left)[:, columns])
        assert sides is not None
        first, second = (right, left) if columns.step is None else (left, right)
        np.testing.assert_array_equal(sides[0], first[:, columns])
        np.testing.assert_array_equal(sides[1], second[:, columns])


@pytest.mark.parametrize(
    "mask",
    [
        boxes(),
        boxes(RIGHT),
        boxes(RIGHT, LEFT, (50, 55, 50, 70)),
        boxes(RIGHT, (20, 27, 70, 110)),
        boxes((10, 45, 10, 50), (50, 90, 12, 52)),
    ],
    ids=["none", "one", "touching", "fragment", "one above the other"],
)
def test_lungs_that_are_not_two_pieces_side_by_side_are_not_told_apart(mask):
    assert split_lungs(mask) is None
    measures = lung_measures(mask)
    assert measures.pop("lungs_told_apart") == 0
    assert all(math.isnan(value) for value in measures.values())
    assert [*measures, "lungs_told_apart"] == list(lung_measures(boxes(RIGHT, LEFT)))


def test_classes_of_their_own_give_the_sides_also_where_lungs_touch():
    right, left = boxes((10, 90, 10, 60)), boxes((10, 90, 60, 110))
    assert lung_side_measures(right, left)["lung_left_to_right_area_ratio"] == 1
    assert math.isnan(lung_side_measures(boxes(), left)["lung_left_to_right_area_ratio"])
    assert lung_side_measures(right, boxes())["lung_left_to_right_area_ratio"] == 0


def test_a_box_has_the_volume_of_its_edges_and_the_mean_of_its_voxels():
    lungs = np.zeros((8, 40, 50), bool)
    lungs[2:6, 10:30, 5:45] = True
    hounsfield = np.full(lungs.shape, 40, np.int16)
    hounsfield[2:4] = -900
    hounsfield[4:6] = -800
    measures = lung_stack_measures(lungs, spacing=(2.5, 0.5, 0.25), hounsfield=hounsfield)
    # 10 mm x 10 mm x 10 mm
    assert measures == {"lung_volume_ml": 1.0, "lung_mean_hu": -850.0}


def test_an_empty_mask_has_no_volume_and_no_mean():
    nothing = np.zeros((2, 3, 4), bool)
    measures = lung_stack_measures(nothing, spacing=(1, 1, 1), hounsfield=np.zeros((2, 3, 4)))
    assert measures["lung_volume_ml"] == 0
    assert math.isnan(measures["lung_mean_hu"])
    assert list(lung_stack_measures(nothing, spacing=(1, 1, 1))) == ["lung_volume_ml"]


@pytest.mark.parametrize("wrong", [0.0, -2.0, math.nan, math.inf])
def test_a_voxel_spacing_that_is_not_positive_and_finite_is_refused(wrong):
    with pytest.raises(DataError, match=r"scan\.mhd: the voxel spacing is .* three positive numbers"):
        lung_stack_measures(np.ones((2, 2, 2), bool), spacing=(1.0, wrong, 1.0), source="scan.mhd")


def test_a_mask_of_another_volume_is_refused():
    with pytest.raises(DataError, match=r"shape \(2, 3, 4\), the volume \(2, 4, 3\)"):
        lung_stack_measures(np.ones((2, 3, 4), bool), spacing=(1, 1, 1), hounsfield=np.zeros((2, 4, 3)))
