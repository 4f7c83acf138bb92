from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn_metrics

from etnet.metrics.overlap import OverlapScores, confusion_matrix, mean_of_defined

NAMES = ("background", "vessel", "optic_disc")


def scores(labels, target, **options) -> OverlapScores:
    matrix = confusion_matrix(
        np.asarray(labels, np.uint8), np.asarray(target, np.uint8), num_classes=len(NAMES), **options
    )
    return OverlapScores.from_confusion(matrix, NAMES)


@settings(max_examples=50, deadline=None)
@given(pair=hnp.arrays(np.uint8, st.tuples(st.just(2), st.integers(1, 40)), elements=st.integers(0, 2)))
def test_scores_equal_those_of_scikit_learn(pair):
    labels, target = pair
    got = scores(labels, target)
    classes = [0, 1, 2]
    reference = {
        "dice": sklearn_metrics.f1_score(target, labels, labels=classes, average=None, zero_division=np.nan),
        "iou": _jaccard(target, labels, classes),
        "sensitivity": sklearn_metrics.recall_score(target, labels, labels=classes, average=None, zero_division=np.nan),
    }
    for name, expected in reference.items():
        np.testing.assert_allclose(getattr(got, name), expected, equal_nan=True, err_msg=name)
    assert got.accuracy == pytest.approx(sklearn_metrics.accuracy_score(target, labels))
    for index in classes:
        outside = target != index
        expected = np.mean(labels[outside] != index) if outside.any() else math.nan
        assert got.specificity[index] == pytest.approx(expected, nan_ok=True)


def _jaccard(target, labels, classes) -> list[float]:
    # scikit-learn's jaccard_score accepts no NaN for absent classes.
    return [
        sklearn_metrics.jaccard_score(target == c, labels == c) if ((target == c) | (labels == c)).any() else math.nan
        for c in classes
    ]


def test_rows_are_true_classes_and_columns_predicted_ones():
    matrix = confusion_matrix(np.array([2, 2, 0], np.uint8), np.array([1, 1, 0], np.uint8), num_classes=3)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 2], [0, 0, 0]]
    assert matrix.dtype == np.int64


def test_a_class_absent_from_both_maps_is_nan_and_left_out_of_the_means():
    got = scores([0, 1, 1, 0], [0, 1, 0, 0])
    assert math.isnan(got.dice[2])
    assert math.isnan(got.iou[2])
    assert got.mean_dice == got.dice[1] == pytest.approx(2 / 3)
    assert got.mean_iou == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_that_is_only_predicted_scores_zero():
    got = scores([0, 2], [0, 0])
    assert got.dice[2] == 0.0
    assert math.isnan(got.sensitivity[2])
    assert got.specificity[2] == 0.5


def test_ignored_pixels_and_pixels_outside_the_region_do_not_count():
    labels, target = [0, 1, 1, 2], [0, 255, 0, 1]
    where = np.array([True, True, True, False])
    got = scores(labels, target, ignore_index=255, where=where)
    assert got.pixels == 2
    assert got.accuracy == 0.5


def test_no_counted_pixel_gives_nan_everywhere():
    got = scores([0, 1], [255, 255], ignore_index=255)
    assert got.pixels == 0
    for value in (got.accuracy, got.mean_iou, got.mean_dice, *got.dice, *got.specificity):
        assert math.isnan(value)


def test_confusion_of_parts_adds_up_to_the_confusion_of_the_whole():
    generator = np.random.default_rng(0)
    labels, target = generator.integers(0, 3, (2, 10, 10), dtype=np.uint8)
    parts = [confusion_matrix(labels[rows], target[rows], num_classes=3) for rows in (slice(0, 4), slice(4, None))]
    np.testing.assert_array_equal(sum(parts), confusion_matrix(labels, target, num_classes=3))


@pytest.mark.parametrize(
    ("labels", "target", "options", "message"),
    [
        ([0, 1], [0], {}, "same shape"),
        ([0, 1], [0, 7], {}, r"target holds values 0\.\.7; expected 0\.\.2"),
        ([0, 9], [0, 1], {}, r"labels holds values 0\.\.9"),
        ([0, 1], [0, 1], {"where": np.array([True])}, "where has shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(labels, target, options, message):
    with pytest.raises(ValueError, match=message):
        scores(labels, target, **options)


def test_a_matrix_for_other_classes_is_refused():
    with pytest.raises(ValueError, match="3 classes"):
        OverlapScores.from_confusion(np.zeros((2, 2), np.int64), NAMES)


def test_the_dictionary_holds_none_for_undefined_scores_and_plain_floats_otherwise():
    content = scores([0, 1], [0, 1]).to_dict()
    assert content["classes"]["optic_disc"] == {"dice": None, "iou": None, "sensitivity": None, "specificity": 1.0}
    assert content["classes"]["vessel"]["dice"] == 1.0
    assert content["mean_iou"] == 1.0
    assert type(content["accuracy"]) is float


def test_mean_of_nothing_defined_is_nan():
    assert math.isnan(mean_of_defined([math.nan]))
    assert math.isnan(mean_of_defined([]))
