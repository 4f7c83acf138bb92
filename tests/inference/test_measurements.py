from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest

from etnet.data.roi import window_around
from etnet.inference.measurements import (
    MeasuredImage,
    measure_labels,
    measure_prediction,
    structures_of,
    write_measurements,
)
from etnet.metrics.scale import millimetres
from etnet.metrics.vessels import vessel_measures
from etnet.types import Prediction, RegionOfInterest
from helpers.backends import contract, random_labels
from helpers.bundles import draw_disc, segmenter_contract

ROI = RegionOfInterest(side=0.4, size=48)
SHAPE_COLUMNS = (
    "area_px",
    "perimeter_px",
    "equivalent_diameter_px",
    "solidity",
    "centroid_row_px",
    "centroid_column_px",
    "box_top_px",
    "box_left_px",
    "box_height_px",
    "box_width_px",
)
NERVE_COLUMNS = (
    "optic_disc_vertical_diameter_px",
    "optic_disc_horizontal_diameter_px",
    "optic_cup_vertical_diameter_px",
    "optic_cup_horizontal_diameter_px",
    "vertical_cup_to_disc_ratio",
    "horizontal_cup_to_disc_ratio",
    "cup_to_disc_area_ratio",
    "rim_width_inferior_px",
    "rim_width_superior_px",
    "rim_width_image_left_px",
    "rim_width_image_right_px",
    "no_cup",
    "cup_outside_disc",
    "optic_disc_cut_off_by",
)


def predicted(labels: np.ndarray, center: tuple[float, float] | None = None) -> Prediction:
    return Prediction(labels, None, None, center)


def shape_columns(*structures: str) -> list[str]:
    return [f"{structure}_{column}" for structure in structures for column in SHAPE_COLUMNS]


def two_lungs() -> np.ndarray:
    labels = np.zeros((60, 80), np.uint8)
    labels[10:50, 10:30] = 1
    labels[10:40, 50:70] = 1
    return labels


def test_every_class_has_its_shape_and_vessels_have_their_own_values():
    labels = random_labels(13, 17)
    values = measure_prediction(predicted(labels), contract())
    assert values["vessel_area_px"] == np.count_nonzero(labels == 1)
    assert values["optic_disc_area_px"] == np.count_nonzero(labels == 2)
    vessels = vessel_measures(labels == 1)
    assert list(values) == [*shape_columns("vessel", "optic_disc"), *vessels]
    assert values["vessel_skeleton_length_px"] == vessels["vessel_skeleton_length_px"]


def test_a_class_that_was_not_found_has_the_area_zero_and_no_place():
    values = measure_prediction(predicted(np.zeros((4, 5), np.uint8)), contract())
    assert (values["vessel_area_px"], values["optic_disc_area_px"], values["vessel_branch_points"]) == (0, 0, 0)
    assert values["optic_disc_centroid_row_px"] is None
    assert list(values) == list(measure_prediction(predicted(random_labels(13, 17)), contract()))


def test_no_value_is_not_a_number():
    for labels in (np.zeros((9, 9), np.uint8), np.ones((9, 9), np.uint8), random_labels(9, 9)):
        values = measure_prediction(predicted(labels), segmenter_contract(ROI))
        assert not any(isinstance(value, float) and math.isnan(value) for value in values.values())


def test_disc_and_cup_have_their_diameters_ratios_and_rim():
    # The disc is 24 rows high, the cup 12 (radii 12 and 6 around a corner of four pixels).
    labels = draw_disc((100, 120), (50, 60), 12)
    values = measure_prediction(predicted(labels, (50.0, 60.0)), segmenter_contract(ROI))
    assert list(values) == [
        "center_row_px",
        "center_column_px",
        *shape_columns("optic_rim", "optic_cup", "optic_disc"),
        *NERVE_COLUMNS,
    ]
    assert (values["center_row_px"], values["center_column_px"]) == (50.0, 60.0)
    assert values["optic_disc_area_px"] == values["optic_rim_area_px"] + values["optic_cup_area_px"]
    assert values["optic_disc_area_px"] == pytest.approx(np.pi * 12**2, rel=0.02)
    assert (values["optic_disc_centroid_row_px"], values["optic_disc_centroid_column_px"]) == (50, 60)
    assert (values["optic_disc_vertical_diameter_px"], values["optic_cup_vertical_diameter_px"]) == (24, 12)
    assert (values["vertical_cup_to_disc_ratio"], values["horizontal_cup_to_disc_ratio"]) == (0.5, 0.5)
    assert values["rim_width_superior_px"] == pytest.approx(6, abs=0.3)


def test_a_disc_class_that_is_only_the_rim_gives_the_same_values():
    rim_and_cup = replace(contract(), class_names=("background", "optic_disc", "optic_cup"))
    labels = draw_disc((100, 120), (50, 60), 12)
    values = measure_prediction(predicted(labels), rim_and_cup)
    grouped = measure_prediction(predicted(labels), segmenter_contract(ROI))
    assert {name: grouped[name] for name in values} == values
    assert values["optic_disc_vertical_diameter_px"] == 24


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


def test_a_known_eye_names_the_sides_of_the_rim():
    labels = draw_disc((100, 120), (50, 60), 12)
    structures = structures_of(("background", "optic_rim", "optic_cup"), {"optic_disc": (1, 2)})
    values = measure_labels(labels, structures, eye="right")
    assert [name for name in values if name.startswith("rim_width")] == [
        f"rim_width_{side}_px" for side in ("inferior", "superior", "nasal", "temporal")
    ]


@pytest.mark.parametrize("name", ["lung", "lungs"])
def test_lungs_of_one_class_are_told_apart_by_their_pieces(name):
    values = measure_labels(two_lungs(), {name: (1,)})
    assert (values["lung_right_area_px"], values["lung_left_area_px"]) == (800, 600)
    assert values["lungs_told_apart"] == 1


def test_lungs_of_two_classes_are_told_apart_by_their_names():
    structures = structures_of(("background", "left_lung", "right_lung"), {"lung": (1, 2)})
    labels = np.zeros((60, 80), np.uint8)
    labels[10:50, 10:40], labels[10:50, 40:60] = 2, 1
    values = measure_labels(labels, structures)
    assert (values["lung_right_area_px"], values["lung_left_area_px"]) == (1200, 800)
    assert values["lung_area_px"] == 2000
    assert "lungs_told_apart" not in values


def test_with_a_known_spacing_sizes_are_in_millimetres_and_places_stay_in_pixels():
    in_pixels, in_mm = (
        measure_labels(two_lungs(), {"lung": (1,)}, scale=scale) for scale in (millimetres(1, 1), millimetres(0.5, 2))
    )
    assert list(in_pixels) == list(in_mm)
    assert in_mm["lung_area_mm2"] == 1400
    assert in_mm["lung_box_height_px"] == 40
    sizes = [name for name in in_mm if any(word in name for word in ("area_", "perimeter", "diameter"))]
    assert all(name.endswith(("_mm", "_mm2", "_ratio")) for name in sizes)


def test_vessels_are_counted_inside_the_field_of_view():
    labels = random_labels(40, 40, num_classes=2)
    view = np.zeros((40, 40), bool)
    view[10:30, 10:30] = True
    values = measure_labels(labels, {"vessels": (1,)}, field_of_view=view)
    assert values["vessel_density_in_field_of_view"] == labels[10:30, 10:30].mean()
    assert values["vessels_area_px"] == labels.sum()


def test_a_table_has_the_columns_of_all_images_and_an_empty_cell_where_one_has_no_value(tmp_path):
    table = tmp_path / "measurements.csv"
    images = [
        MeasuredImage("a.png", 4, 5, {"area_px": 7, "solidity": None}),
        MeasuredImage("b.png", 6, 7, {"area_mm2": 1.25, "solidity": 0.5}),
    ]
    write_measurements(table, lambda: images)
    with table.open(newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [
            ["file", "height_px", "width_px", "area_px", "solidity", "area_mm2"],
            ["a.png", "4", "5", "7", "", ""],
            ["b.png", "6", "7", "", "0.5000", "1.2500"],
        ]
