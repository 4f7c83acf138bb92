from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from etnet.data.roi import window_around
from etnet.inference.measurements import measure_prediction
from etnet.types import Prediction, RegionOfInterest
from helpers.backends import contract, random_labels
from helpers.bundles import draw_disc, segmenter_contract

ROI = RegionOfInterest(side=0.4, size=48)


def predicted(labels: np.ndarray, center: tuple[float, float] | None = None) -> Prediction:
    return Prediction(labels, None, None, center)


def test_the_area_of_every_class_is_its_number_of_pixels():
    labels = random_labels(13, 17)
    assert measure_prediction(predicted(labels), contract()) == {
        "vessel_area_px": np.count_nonzero(labels == 1),
        "optic_disc_area_px": np.count_nonzero(labels == 2),
    }


def test_a_class_that_was_not_found_has_the_area_zero():
    values = measure_prediction(predicted(np.zeros((4, 5), np.uint8)), contract())
    assert values == {"vessel_area_px": 0, "optic_disc_area_px": 0}


def test_disc_and_cup_have_their_vertical_diameters_and_their_ratio():
    # The disc is 24 rows high, the cup 12 (radii 12 and 6 around a corner of four pixels).
    labels = draw_disc((100, 120), (50, 60), 12)
    values = measure_prediction(predicted(labels, (50.0, 60.0)), segmenter_contract(ROI))
    assert list(values) == [
        "center_row_px",
        "center_column_px",
        "optic_rim_area_px",
        "optic_cup_area_px",
        "optic_disc_area_px",
        "optic_disc_vertical_diameter_px",
        "optic_cup_vertical_diameter_px",
        "vertical_cup_to_disc_ratio",
        "optic_disc_cut_off_by",
    ]
    assert (values["center_row_px"], values["center_column_px"]) == (50.0, 60.0)
    assert values["optic_disc_area_px"] == values["optic_rim_area_px"] + values["optic_cup_area_px"]
    assert values["optic_disc_area_px"] == pytest.approx(np.pi * 12**2, rel=0.02)
    assert (values["optic_disc_vertical_diameter_px"], values["optic_cup_vertical_diameter_px"]) == (24, 12)
    assert values["vertical_cup_to_disc_ratio"] == 0.5


def test_a_disc_class_that_is_only_the_rim_gives_the_same_ratio():
    rim_and_cup = replace(contract(), class_names=("background", "optic_disc", "optic_cup"))
    values = measure_prediction(predicted(draw_disc((100, 120), (50, 60), 12)), rim_and_cup)
    assert values["optic_disc_vertical_diameter_px"] == 24
    assert values["vertical_cup_to_disc_ratio"] == 0.5


def test_without_a_disc_there_is_no_ratio_and_with_an_empty_cup_it_is_zero():
    rules = segmenter_contract(ROI)
    assert measure_prediction(predicted(np.zeros((9, 9), np.uint8)), rules)["vertical_cup_to_disc_ratio"] is None
    rim_only = np.pad(np.ones((9, 9), np.uint8), 1)
    assert measure_prediction(predicted(rim_only), rules)["vertical_cup_to_disc_ratio"] == 0.0


@pytest.mark.parametrize(
    ("center", "region", "border"),
    [
        ((50, 60), (50.0, 60.0), ""),
        ((50, 60), (50.0, 82.0), "region"),
        ((50, 60), (28.0, 60.0), "region"),
        ((7, 60), (20.0, 60.0), "image"),
        ((50, 115), (50.0, 100.0), "image"),
    ],
)
def test_a_disc_that_is_cut_off_has_no_ratio_and_says_by_what(center, region, border):
    labels = draw_disc((100, 120), center, 12)
    top, left, side = window_around(region, labels.shape, ROI)
    seen = np.zeros_like(labels)
    rows, columns = slice(max(top, 0), top + side), slice(max(left, 0), left + side)
    seen[rows, columns] = labels[rows, columns]
    values = measure_prediction(predicted(seen, region), segmenter_contract(ROI))
    assert values["optic_disc_cut_off_by"] == border
    assert (values["vertical_cup_to_disc_ratio"] is None) == bool(border)
