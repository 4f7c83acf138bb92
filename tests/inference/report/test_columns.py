from __future__ import annotations

import pytest

from etnet.inference.measurements import measure_labels, structures_of
from etnet.inference.report.columns import by_importance, is_telling, title, title_and_unit
from etnet.metrics.scale import Scale


def columns_of(*class_names: str, scale: Scale | None = None) -> list[str]:
    import numpy as np

    labels = np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30] = 1
    labels[15:25, 15:25] = len(class_names) - 1
    return list(measure_labels(labels, structures_of(class_names, {}), **({} if scale is None else {"scale": scale})))


@pytest.mark.parametrize(
    ("classes", "first"),
    [
        (("background", "optic_disc", "optic_cup"), "vertical_cup_to_disc_ratio"),
        (("background", "vessel"), "vessel_density_in_image"),
        (("background", "lung"), "lung_left_to_right_area_ratio"),
        (("background", "lesion"), "lesion_area_px"),
    ],
)
def test_the_most_telling_measurement_of_each_task_comes_first(classes, first):
    columns = columns_of(*classes)
    assert by_importance(columns)[0] == first
    assert sorted(by_importance(columns)) == sorted(columns)


def test_places_and_boxes_are_not_telling():
    folded = [column for column in columns_of("background", "vessel") if not is_telling(column)]
    assert {"vessel_centroid_row_px", "vessel_box_top_px", "vessel_perimeter_px"} <= set(folded)


@pytest.mark.parametrize("scale", [None, Scale(row=0.5, column=0.5, unit="mm")], ids=["pixels", "millimetres"])
def test_every_unit_that_is_measured_in_is_told_from_the_name(scale):
    for column in columns_of("background", "optic_rim", "optic_cup", scale=scale):
        name, unit = title_and_unit(column)
        assert not {"px", "mm", "mm2"} & set(name.split()), column
        assert bool(unit) == column.endswith(("_px", "_mm", "_mm2")), column


@pytest.mark.parametrize("column", ["px", "", "_", "_mm", "ratio"])
def test_odd_names_keep_a_title(column):
    assert title(column) == title_and_unit(column)[0]
    assert title(column) or not column
