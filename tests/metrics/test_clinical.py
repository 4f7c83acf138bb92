from __future__ import annotations

import math

import numpy as np
import pytest

from etnet.metrics.clinical import clinical_measures, vertical_cup_to_disc_ratio, vertical_extent, vessel_density

FUNDUS = {"optic_rim": (1,), "optic_cup": (2,), "optic_disc": (1, 2)}


def fundus(*, disc: tuple[int, int] | None, cup: tuple[int, int] | None) -> np.ndarray:
    """Class indices of a disc and a cup that span these rows, the last one not included."""
    labels = np.zeros((60, 50), np.uint8)
    for value, rows in ((1, disc), (2, cup)):
        if rows is not None:
            labels[rows[0] : rows[1], 10 + 5 * value : 40 - 5 * value] = value
    return labels


def test_the_ratio_is_that_of_the_heights():
    target = fundus(disc=(10, 50), cup=(20, 40))
    labels = fundus(disc=(10, 50), cup=(20, 44))
    got = clinical_measures(labels, target, FUNDUS)
    assert got["vertical_cdr_true"] == 0.5
    assert got["vertical_cdr_predicted"] == 0.6
    assert got["vertical_cdr_error"] == pytest.approx(0.1)
    assert clinical_measures(target, labels, FUNDUS)["vertical_cdr_error"] == pytest.approx(-0.1)
    assert clinical_measures(target, labels, FUNDUS)["vertical_cdr_absolute_error"] == pytest.approx(0.1)


def test_the_annotators_ratio_is_compared_where_it_is_known():
    target = fundus(disc=(10, 50), cup=(20, 40))
    got = clinical_measures(target, target, FUNDUS, reference_cdr=0.77)
    assert got["vertical_cdr_error"] == 0.0
    assert got["vertical_cdr_annotators_error"] == pytest.approx(-0.27)
    assert got["vertical_cdr_annotators_absolute_error"] == pytest.approx(0.27)
    assert "vertical_cdr_annotators_error" not in clinical_measures(target, target, FUNDUS)


def test_a_disc_without_a_cup_has_the_ratio_0_and_no_disc_has_none():
    whole = fundus(disc=(10, 50), cup=(20, 40))
    no_cup, nothing = fundus(disc=(10, 50), cup=None), fundus(disc=None, cup=None)
    missed_cup = clinical_measures(no_cup, whole, FUNDUS)
    assert missed_cup["vertical_cdr_error"] == -0.5
    assert missed_cup["optic_cup_area_error"] == -1.0
    missed_all = clinical_measures(nothing, whole, FUNDUS)
    assert math.isnan(missed_all["vertical_cdr_error"])
    assert missed_all["optic_disc_area_error"] == -1.0
    absent = clinical_measures(whole, nothing, FUNDUS)
    assert math.isnan(absent["vertical_cdr_absolute_error"])
    assert math.isnan(absent["optic_disc_area_error"])


def test_areas_are_relative_to_the_true_area():
    target = fundus(disc=(10, 50), cup=None)
    labels = fundus(disc=(10, 40), cup=None)
    got = clinical_measures(labels, target, FUNDUS)
    assert got["optic_disc_area_error"] == pytest.approx(-0.25)
    assert got["optic_disc_area_absolute_error"] == pytest.approx(0.25)


def test_a_class_named_after_the_whole_disc_is_joined_with_its_cup():
    target = fundus(disc=(10, 50), cup=(20, 40))
    labels = fundus(disc=(10, 50), cup=(20, 44))
    as_classes = {"optic_disc": (1,), "optic_cup": (2,)}
    assert clinical_measures(labels, target, as_classes) == clinical_measures(labels, target, FUNDUS)


def test_a_disc_without_a_cup_class_gives_its_area_alone():
    target = fundus(disc=(10, 50), cup=None)
    got = clinical_measures(target, target, {"optic_disc": (1,)})
    assert got == {"optic_disc_area_error": 0.0, "optic_disc_area_absolute_error": 0.0}


def test_vessel_density_counts_inside_the_field_of_view():
    target, labels = np.zeros((2, 10, 10), np.uint8)
    target[2, :], labels[2, :5] = 1, 1
    labels[0, :] = 1
    view = np.zeros((10, 10), bool)
    view[2:7] = True
    got = clinical_measures(labels, target, {"vessel": (1,)}, field_of_view=view)
    assert got["vessel_density_true"] == pytest.approx(0.2)
    assert got["vessel_density_error"] == pytest.approx(-0.1)
    whole = clinical_measures(labels, target, {"vessels": (1,)})
    assert whole["vessel_density_error"] == pytest.approx(0.05)


def test_density_of_an_empty_region_is_undefined():
    assert math.isnan(vessel_density(np.ones((2, 2), bool), np.zeros((2, 2), bool)))


def test_pixels_without_a_label_count_nowhere():
    target = fundus(disc=(10, 50), cup=(20, 40))
    target[30:, :] = 255
    labels = fundus(disc=(10, 60), cup=(20, 60))
    got = clinical_measures(labels, target, FUNDUS, labelled=target != 255)
    assert got["vertical_cdr_error"] == 0.0
    assert got["optic_disc_area_error"] == 0.0
    vessels = np.array([[1, 0, 255, 255]], np.uint8)
    density = clinical_measures(np.ones_like(vessels), vessels, {"vessel": (1,)}, labelled=vessels != 255)
    assert density["vessel_density_true"] == 0.5
    assert density["vessel_density_predicted"] == 1.0


@pytest.mark.parametrize("name", ["lung", "lungs"])
def test_lung_area_has_one_name(name):
    target = np.ones((4, 4), np.uint8)
    labels = target.copy()
    labels[0] = 0
    got = clinical_measures(labels, target, {name: (1,)})
    assert got == {"lung_area_error": pytest.approx(-0.25), "lung_area_absolute_error": pytest.approx(0.25)}


def test_structures_without_a_clinical_quantity_give_none():
    labels = np.ones((4, 4), np.uint8)
    assert clinical_measures(labels, labels, {"cell": (1,)}) == {}


def test_extent_reaches_from_the_first_to_the_last_row():
    mask = np.zeros((9, 3), bool)
    assert vertical_extent(mask) == 0
    mask[4, 1] = True
    assert vertical_extent(mask) == 1
    mask[7, 0] = True
    assert vertical_extent(mask) == 4
    assert math.isnan(vertical_cup_to_disc_ratio(np.zeros((9, 3), bool), mask))


def test_the_ratio_of_the_masks_lies_near_that_of_the_annotators_on_drishti(drishti_root):
    import cv2

    folders = sorted((drishti_root / "Training/GT").glob("drishtiGS_*"))
    assert folders
    differences = []
    for folder in folders[:12]:
        disc, cup = (
            cv2.imread(str(next(folder.rglob(f"*_{part}segSoftmap.png"))), cv2.IMREAD_GRAYSCALE) > 160
            for part in ("OD", "cup")
        )
        annotators = np.mean([float(word) for word in next(folder.glob("*_cdrValues.txt")).read_text().split()])
        differences.append(abs(vertical_cup_to_disc_ratio(disc, cup) - annotators))
    assert np.mean(differences) < 0.05
